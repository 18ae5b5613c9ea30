"""Which slides a share has."""

import pytest

from doctogres.errors import ParameterError
from doctogres.records.share import Share, divided
from doctogres.records.slide import Slide


def slides(count: int) -> list[Slide]:
    return [Slide(f"img_{number:04}", None, None, "", None, "kept", "") for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_slide_is_in_one_share_whatever_the_others_are(count: int) -> None:
    everything = divided(slides(60), count)
    assert list(everything) == [Share(number, count) for number in range(1, count + 1)]
    assert sorted(slide.slide_id for share in everything.values() for slide in share) == [
        slide.slide_id for slide in slides(60)
    ]
    some = divided(slides(60)[::3], count)
    assert all(set(some[share]) <= set(everything[share]) for share in some)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "JOIN", "1 /4"])
def test_another_value_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ParameterError, match=r"shard=.*1/8 to 8/8, or join"):
        Share.parse(text)


def test_a_share_is_read_as_it_is_written() -> None:
    assert Share.parse("") is Share.parse("join") is None
    assert str(Share.parse("12/1000")) == "12/1000"
