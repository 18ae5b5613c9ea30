"""Groups by hash."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from doctogres.cleaning.twins import twin_groups


@given(st.dictionaries(st.integers(0, 99).map(str), st.sampled_from(["x", "y", "z", None]), max_size=20))
def test_groups_are_exactly_the_slides_with_a_common_hash(hashes):
    groups = twin_groups(hashes.items())
    assert all(len(group) > 1 and len({hashes[slide] for slide in group}) == 1 for group in groups)
    counts = Counter(digest for digest in hashes.values() if digest)
    assert sum(map(len, groups)) == sum(count for count in counts.values() if count > 1)
