"""Thumbnails of a cohort, of which the audit page shows only some."""

from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.thumbnails import Thumbnails


def test_each_slide_has_its_own_and_none_stays_in_the_measurements() -> None:
    thumbnails = Thumbnails()
    taken = [thumbnails.take(Evidence(name, thumbnail=name.encode() * 3)) for name in ("a", "bb")]
    assert thumbnails.of("a") == b"aaa"
    taken.append(thumbnails.take(Evidence("c")))
    assert [thumbnails.of(name) for name in ("bb", "a", "c", "d")] == [b"bbbbbb", b"aaa", None, None]
    assert [one.thumbnail for one in taken] == [None] * 3
