"""Pictures and masks that state different EXIF orientations: the rows of docs/your-data.md on them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doctogres.slides.formats import upright
from doctogres.slides.images import encode_png
from doctogres.slides.masks import MarkedSlide, OrientationError, SizeMismatchError, read_with_mask
from doctogres.slides.reasons import Reason
from tests.slides.test_plausibility import drawn

PAGE = Path(__file__).parents[2] / "docs/your-data.md"
TURNS = range(2, 9)
INVERSE = {6: 8, 8: 6}


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a file holds whose upright content is `array`."""
    return np.ascontiguousarray(upright(array, INVERSE.get(orientation, orientation)))


def file(array: np.ndarray, orientation: int = 1, kind: str = "PNG") -> bytes:
    """A file of this upright content that states an orientation."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    Image.fromarray(stored(array, orientation)).save(buffer, kind, **options)
    return buffer.getvalue()


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def read(picture: bytes, mask: bytes) -> MarkedSlide:
    return read_with_mask(picture, mask, name="p", mask_name="m")


def test_the_page_has_these_rows() -> None:
    section = PAGE.read_text("utf-8").split("| picture and mask | what becomes of them |\n")[1].split("\n\n")[0]
    assert len(section.splitlines()) == 1 + 5  # a test for each follows


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_one_orientation_of_both_is_undone(orientation: int, kind: str) -> None:
    rgb, mask = drawn()
    slide = read(file(rgb, orientation, kind), file(grey(mask), orientation, kind))
    assert np.array_equal(slide.picture.working, rgb)
    assert np.array_equal(slide.mask, mask)
    assert slide.note == ""


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_that_was_drawn_on_the_upright_picture_is_known_by_its_size(orientation: int) -> None:
    rgb, mask = drawn()
    slide = read(file(rgb, orientation), encode_png(mask))
    assert np.array_equal(slide.mask, mask)
    assert slide.note == ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_that_was_drawn_on_the_stored_pixels_is_turned_where_only_that_fits(orientation: int, kind: str) -> None:
    rgb, mask = drawn()
    slide = read(file(rgb, orientation, kind), encode_png(stored(mask, orientation)))
    assert np.array_equal(slide.mask, mask)
    assert Reason.of(slide.note) is Reason.MASK_ORIENTATION
    assert f"p states EXIF orientation {orientation} and m 1; the mask was laid turned like the picture" in slide.note


@pytest.mark.parametrize("of_mask", [1, 4])
@pytest.mark.parametrize("orientation", [2, 3])
def test_where_both_sizes_fit_the_tissue_decides(orientation: int, of_mask: int) -> None:
    rgb, mask = drawn()
    plain = read(file(rgb, orientation), file(grey(mask), of_mask))
    assert np.array_equal(plain.mask, mask)
    assert "the mask was laid as it is, because so it fits the tissue better" in plain.note
    raw = stored(mask, orientation)  # the picture's stored pixels were marked, and the mask's file says another turn
    turned = read(file(rgb, orientation), file(grey(upright(raw, of_mask)), of_mask))
    assert np.array_equal(turned.mask, mask)
    assert "the mask was laid turned like the picture" in turned.note


def test_a_square_picture_may_lie_too() -> None:
    rgb, mask = drawn((400, 400))
    rgb[:, 150:270] = np.maximum(rgb[:, 150:270], (190, 190, 188))
    mask[:, 150:270] = False
    slide = read(file(rgb, 6), encode_png(stored(mask, 6)))
    assert np.array_equal(slide.mask, mask)
    assert "turned like the picture" in slide.note


def test_where_the_tissue_says_nothing_the_pair_is_refused() -> None:
    rgb, mask = drawn()
    rgb[:] = (205, 140, 180)  # nothing but tissue, all alike
    with pytest.raises(OrientationError, match="p states EXIF orientation 3 and m 1, and the tissue does not tell"):
        read(file(rgb, 3), encode_png(mask))


def test_a_mask_that_is_the_same_either_way_is_read() -> None:
    rgb, mask = drawn()
    assert read(file(rgb, 3), encode_png(mask | mask[::-1, ::-1])).note == ""
    assert not read(file(rgb, 3), encode_png(np.zeros_like(mask))).mask.any()


def test_a_mask_of_neither_size_is_refused() -> None:
    rgb, mask = drawn()
    with pytest.raises(SizeMismatchError):
        read(file(rgb, 6), encode_png(mask[:-1]))
    with pytest.raises(SizeMismatchError):
        read(file(rgb, 3), encode_png(np.ascontiguousarray(mask.T)))
