"""Reasons: one owner of code, sentence and remedy."""

import re
import string
from pathlib import Path

import pytest

from doctogres.model.classifier import NoLesionError, TooManyRegionsError
from doctogres.slides.formats import ImageError, TooManyPixelsError
from doctogres.slides.images import ColourModeError
from doctogres.slides.masks import MaskValueError
from doctogres.slides.reasons import Reason, parsed, written

ROOT = Path(__file__).parents[2]


class Anything(str):
    """A fact that takes every format."""

    def __format__(self, spec: str) -> str:
        return str(self)


@pytest.mark.parametrize("reason", Reason)
def test_what_is_written_is_read_back(reason: Reason) -> None:
    names = [name for _, name, _, _ in string.Formatter().parse(reason.sentence) if name]
    text = reason.because(**dict.fromkeys(names, Anything("{a}: b: c")))
    assert text.startswith(f"{reason.value}: ")
    assert Reason.of(text) is reason
    assert written(*parsed(text)) == text


def test_the_facts_are_formatted() -> None:
    text = Reason.SLIME.because(share=0.03456, in_mask=0.5, more="; kept")
    assert text == "slime: a glossy green splat covers 3.46% of the picture, 50% of it marked as lesion; kept"


def test_no_reason_is_none_and_an_unknown_one_is_refused() -> None:
    assert Reason.of("") is None
    with pytest.raises(ValueError, match="wrong_moon"):
        Reason.of("wrong_moon: of another version")


def test_the_errors_that_end_as_reasons_have_their_codes() -> None:
    errors = (ImageError, TooManyPixelsError, ColourModeError, MaskValueError, NoLesionError, TooManyRegionsError)
    assert all(isinstance(error.code, Reason) for error in errors)


@pytest.mark.parametrize("reason", Reason)
def test_the_docs_have_every_reason_with_its_remedy(reason: Reason) -> None:
    lines = [line for line in (ROOT / "docs/cleaning.md").read_text("utf-8").splitlines() if f"`{reason}`" in line]
    assert any(reason.remedy in line for line in lines)


def test_no_other_module_writes_a_code_by_hand() -> None:
    by_hand = re.compile(rf"""f?["']({"|".join(Reason)}): """)
    modules = [path for path in (ROOT / "src").rglob("*.py") if path.name != "reasons.py"]
    assert not [path.name for path in modules if by_hand.search(path.read_text("utf-8"))]
