"""A share of a cohort's slides, as `shard=2/8` names it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from doctogres.catalogue import JOIN
from doctogres.errors import ParameterError
from doctogres.files import digest
from doctogres.records.slide import Slide

SHARE: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})/(?P<count>[1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count` shares.

    A slide's share depends on its name alone: not on its place in the list, nor on the other slides.
    """

    number: int
    count: int

    def __str__(self) -> str:
        """As in the parameter."""
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The share that the parameter `shard` names; None if it is empty or `join`.

        Raises:
            ParameterError: it is none of these.
        """
        if text in ("", JOIN):
            return None
        found = SHARE.fullmatch(text)
        if not found or int(found["number"]) > int(found["count"]):
            raise ParameterError(
                f"shard={text}: give the number of the share and of all shares, as 1/8 to 8/8, or join to put them together"
            )
        return cls(int(found["number"]), int(found["count"]))


WHOLE: Final = Share(1, 1)


def divided(slides: Iterable[Slide], count: int) -> dict[Share, list[Slide]]:
    """All shares with their slides, in order; some may have none."""
    shares: dict[Share, list[Slide]] = {Share(number, count): [] for number in range(1, count + 1)}
    for slide in slides:
        shares[Share(int(digest(slide.slide_id), 16) % count + 1, count)].append(slide)
    return shares
