"""The eight ways in which a square can lie."""

import numpy as np

from doctogres.slides.turns import TURNS, turned


def test_the_eight_turns_are_all_different_and_a_group() -> None:
    pictures = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    views = [turned(pictures, turn, axes=(1, 2)) for turn in range(len(TURNS))]
    assert np.array_equal(views[0], pictures)
    assert len({view.tobytes() for view in views}) == len(TURNS) == 8
    again = {turned(turned(pictures, 5, axes=(1, 2)), turn, axes=(1, 2)).tobytes() for turn in range(8)}
    assert again == {view.tobytes() for view in views}
    assert all(np.array_equal(turned(pictures[1], turn), view[1]) for turn, view in enumerate(views))
