"""The eight ways in which a square can lie: tissue has no up and no left."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Quarter turns counter-clockwise, then whether left and right are swapped; the first leaves everything as it is.
TURNS: Final = tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4))


def turned(pictures: npt.NDArray[Any], turn: int, *, axes: tuple[int, int] = (0, 1)) -> npt.NDArray[Any]:
    """Squares in one of the eight TURNS, by its number.

    Args:
        pictures: a square or an array of them.
        turn: 0 to 7.
        axes: of the rows and of the columns.
    """
    quarters, mirrored = TURNS[turn]
    quarter = np.rot90(pictures, quarters, axes)
    return np.ascontiguousarray(np.flip(quarter, axes[1]) if mirrored else quarter)
