"""Reasons: one owner of code, sentence and remedy."""

import re
import string
from pathlib import Path

import pytest

from doctogres.errors import DoctogresError
from doctogres.model.cutting import NoLesionError, TooManyRegionsError
from doctogres.slides.costs import CostlyError
from doctogres.slides.depth import BitDepthError
from doctogres.slides.formats import ColourModeError, CompressionError, ImageError, TooManyPixelsError
from doctogres.slides.images import TransparencyError
from doctogres.slides.lesions import MaskValueError
from doctogres.slides.reasons import Reason, by_reason, parsed, written
from doctogres.slides.tiff_pages import PagesError

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
    errors: list[type[DoctogresError]] = [ImageError, TooManyPixelsError, ColourModeError, MaskValueError]
    errors += [
        NoLesionError,
        TooManyRegionsError,
        BitDepthError,
        CompressionError,
        PagesError,
        TransparencyError,
        CostlyError,
    ]
    assert all(isinstance(error.code, Reason) for error in errors)
    assert len({error.code for error in errors}) == len(errors)


def test_a_reason_that_slides_share_is_one_line_with_the_first_three() -> None:
    slides = [(f"img_{n}", Reason.UNLABELLED.because(slide=f"img_{n}", where="is not listed")) for n in range(111)]
    lines = by_reason(
        [("img_x", Reason.MISSING_MASK.because(file="mask_x.png")), *slides, ("img_y", "odd: of a model")]
    )
    assert lines == [
        "111 unlabelled: img_0, img_1, img_2, ... (the first: img_0 is not listed in train_labels.csv; add its label)",
        "1 missing_mask: img_x (mask_x.png does not exist; add the mask, or remove the slide)",
        "1 odd: img_y (of a model)",
    ]


@pytest.mark.parametrize("reason", Reason)
def test_the_docs_have_every_reason_with_its_remedy(reason: Reason) -> None:
    lines = [line for line in (ROOT / "docs/cleaning.md").read_text("utf-8").splitlines() if f"`{reason}`" in line]
    assert any(reason.remedy in line for line in lines)


def test_no_other_module_writes_a_code_by_hand() -> None:
    by_hand = re.compile(rf"""f?["']({"|".join(Reason)}): """)
    modules = [path for path in (ROOT / "src").rglob("*.py") if path.name != "reasons.py"]
    assert not [path.name for path in modules if by_hand.search(path.read_text("utf-8"))]
