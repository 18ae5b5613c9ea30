"""Reading pictures and masks."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from doctogres.errors import ParameterError
from doctogres.images import (
    ColourModeError,
    ImageError,
    MaskValueError,
    TooManyPixelsError,
    encode_png,
    picture_size,
    read_mask,
    read_rgb,
)

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))


def file_of(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)


@given(arrays(np.bool_, SIZES))
def test_a_mask_survives_its_file(mask):
    assert np.array_equal(read_mask(encode_png(mask)), mask)
    assert np.array_equal(read_mask(file_of(Image.fromarray(mask.astype(np.uint8)))), mask)
    assert np.array_equal(read_mask(file_of(Image.fromarray(mask))), mask)


@given(arrays(np.uint8, SIZES.map(lambda size: (*size, 3))))
def test_a_picture_survives_its_file(picture):
    data = encode_png(picture)
    assert np.array_equal(read_rgb(data), picture)
    assert picture_size(data) == (picture.shape[1], picture.shape[0])


@given(arrays(np.bool_, SIZES), st.tuples(*[st.integers(0, 255)] * 3).filter(any))
def test_two_colours_with_black_are_a_mask(mask, colour):
    if len(set(colour)) == 1 and colour[0] not in (1, 255):
        colour = (255, 0, 0)
    painted = mask[..., None] * np.array(colour, np.uint8)
    opaque = np.full(mask.shape, 255, np.uint8)
    palette = Image.fromarray(mask.astype(np.uint8), "L")
    palette.putpalette([0, 0, 0, *colour])
    assert np.array_equal(read_mask(file_of(Image.fromarray(painted))), mask)
    assert np.array_equal(read_mask(file_of(Image.fromarray(np.dstack([painted, opaque])))), mask)
    assert np.array_equal(read_mask(file_of(palette)), mask)


@given(st.integers(0, 2000))
def test_no_truncated_png_is_read(cut):
    whole = encode_png(np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match="slide.png"):
        read_rgb(whole[: min(cut, len(whole) - 1)], name="slide.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured(rgb, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(Image.fromarray(rgb), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.abs(read_rgb(data).astype(int) - upright).max() <= 1
    assert picture_size(data) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_other_modes_become_rgb(rgb, mode):
    image = Image.fromarray(rgb).convert(mode)
    assert np.abs(read_rgb(file_of(image)).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_sixteen_bits_become_eight(rgb):
    deep = rgb[..., 0].astype(np.uint16) * 257
    assert np.array_equal(read_rgb(file_of(Image.fromarray(deep)))[..., 1], rgb[..., 0])


def test_transparency_is_laid_on_white(rgb):
    clear = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    assert (read_rgb(file_of(Image.fromarray(clear))) == 255).all()


@pytest.mark.parametrize("mode", ["CMYK", "F", "I"])
def test_modes_without_a_faithful_conversion_are_refused(rgb, mode):
    with pytest.raises(ColourModeError, match=f"deep.tif.*{mode}"):
        read_rgb(file_of(Image.fromarray(rgb).convert(mode), "TIFF"), name="deep.tif")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"GIF89a"])
def test_what_is_no_picture_is_named(data):
    with pytest.raises(ImageError, match="slide.png"):
        read_rgb(data, name="slide.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="img_0000.png"):
        read_rgb(tmp_path / "img_0000.png")


def test_truncated_jpeg_is_an_error(rgb):
    data = file_of(Image.fromarray(rgb), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        read_rgb(data[: len(data) // 2])


def test_the_pixel_limit_is_checked_before_decoding():
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(TooManyPixelsError, match="bomb.png.*DOCTOGRES_MAX_PIXELS"):
        read_rgb(bomb, name="bomb.png")


def test_the_pixel_limit_can_be_set(rgb, monkeypatch):
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "599")
    with pytest.raises(TooManyPixelsError):
        read_rgb(encode_png(rgb))
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "600")
    assert read_rgb(encode_png(rgb)).shape == (30, 20, 3)
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "many")
    with pytest.raises(ParameterError, match="DOCTOGRES_MAX_PIXELS"):
        read_rgb(encode_png(rgb))


@pytest.mark.parametrize(
    "values",
    [[0, 7], [0, 128, 255], list(range(256)), [0, 1, 255]],
)
def test_a_mask_of_other_values_is_refused_with_them(values):
    mask = np.resize(np.array(values, np.uint8), (16, 16))
    with pytest.raises(MaskValueError, match=rf"m.png.* {len(values)} different values"):
        read_mask(encode_png(mask), name="m.png")


def test_a_mask_of_three_colours_is_refused(rgb):
    with pytest.raises(MaskValueError, match="more than two colours"):
        read_mask(encode_png(rgb))


def test_a_jpeg_mask_is_read_at_its_middle():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 10:40] = True
    assert np.array_equal(read_mask(file_of(Image.fromarray(mask).convert("L"), "JPEG", quality=90)), mask)
