"""Reading pictures and masks."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from doctogres.errors import ParameterError
from doctogres.slides.formats import ColourModeError, ImageError, TooManyPixelsError
from doctogres.slides.images import TransparencyError, encode_png, read_rgb
from doctogres.slides.lesions import MaskValueError
from doctogres.slides.masks import SizeMismatchError, read_mask, read_with_mask
from tests.slides.hostile_files import announced_size

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))


TIFF_WAYS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
MASK_MODES = {
    "0/255": lambda mask: Image.fromarray(mask).convert("L"),
    "0/1": lambda mask: Image.fromarray(mask.astype(np.uint8)),
    "bits": Image.fromarray,
    "palette": lambda mask: Image.fromarray(mask).convert("L").convert("P"),
    "RGB": lambda mask: Image.fromarray(mask).convert("RGB"),
    "RGBA": lambda mask: Image.fromarray(mask).convert("RGBA"),
    "grey-alpha": lambda mask: Image.fromarray(mask).convert("LA"),
    "sixteen-bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
    "sixteen-bits-0/1": lambda mask: Image.fromarray(mask.astype(np.uint16)),
}


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


@pytest.mark.parametrize("mode", MASK_MODES)
@given(mask=arrays(np.bool_, SIZES), way=st.sampled_from(("PNG", *TIFF_WAYS)), orientation=st.integers(1, 8))
def test_a_mask_survives_every_mode_and_orientation(mode, mask, way, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if way in ("PNG", None) else {"exif": exif, "compression": way}
    data = file_of(MASK_MODES[mode](mask), "PNG" if way == "PNG" else "TIFF", **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(read_mask(data), upright[..., 0] > 0)
    if mode != "sixteen-bits-0/1":  # as a picture it has no certain depth
        assert np.array_equal(read_mask(data), read_rgb(data)[..., 0] > 0) or mode.endswith("0/1")
    if orientation == 1:
        assert np.array_equal(read_mask(data), mask)


@given(
    arrays(np.uint16, st.tuples(st.integers(2, 24), st.integers(2, 24)), elements=st.integers(0, 65535)),
    st.sampled_from((np.uint8, np.uint16)),
    st.sampled_from(("PNG", "TIFF")),
)
def test_three_grey_values_are_refused_with_their_names(numbers, depth, kind):
    pixels = numbers.astype(depth)
    pixels[0, :2], pixels[1, 0] = (0, 255), 7
    found = np.unique(pixels)
    with pytest.raises(MaskValueError, match=f"m.tif.* {len(found)} different values.*{found[0]}.*{found[-1]}"):
        read_mask(file_of(Image.fromarray(pixels), kind), name="m.tif")


@given(arrays(np.uint8, SIZES.map(lambda size: (*size, 3))))
def test_a_picture_survives_its_file(picture):
    data = encode_png(picture)
    assert np.array_equal(read_rgb(data), picture)
    assert announced_size(data) == (picture.shape[1], picture.shape[0])


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
    assert announced_size(data) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_other_modes_become_rgb(rgb, mode):
    image = Image.fromarray(rgb).convert(mode)
    assert np.abs(read_rgb(file_of(image)).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_sixteen_bits_become_eight(rgb):
    deep = rgb[..., 0].astype(np.uint16) * 257
    assert np.array_equal(read_rgb(file_of(Image.fromarray(deep)))[..., 1], rgb[..., 0])


def test_transparency_is_laid_on_white(rgb):
    rgb[:10] = 90
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    read = read_rgb(file_of(Image.fromarray(np.dstack([rgb, alpha]))))
    assert (read[:10] == 255).all()
    assert np.array_equal(read[10:], rgb[10:])


@given(arrays(np.uint8, SIZES.map(lambda size: (*size, 4))), st.sampled_from(TIFF_WAYS))
def test_transparency_of_a_tiff_is_that_of_a_png(picture, way):
    image = Image.fromarray(picture)
    files = file_of(image, "TIFF", compression=way), file_of(image)
    try:
        expected = read_rgb(files[1])
    except TransparencyError:
        with pytest.raises(TransparencyError):
            read_rgb(files[0])
    else:
        assert np.array_equal(read_rgb(files[0]), expected)


def test_opaque_pictures_with_alpha_are_unchanged(rgb):
    assert np.array_equal(read_rgb(file_of(Image.fromarray(rgb).convert("RGBA"))), rgb)
    assert np.array_equal(read_rgb(file_of(Image.fromarray(rgb).convert("RGBA"), "TIFF")), rgb)


def test_a_transparent_grey_value_is_refused(rgb):
    with pytest.raises(ColourModeError, match="slide.png is grey with a transparent value"):
        read_rgb(file_of(Image.fromarray(rgb[..., 0]), transparency=2), name="slide.png")


@pytest.mark.parametrize("colour", [0, 255])
def test_lesions_held_as_transparency_are_refused(rgb, colour):
    grey = np.full_like(rgb, colour)
    with pytest.raises(MaskValueError, match="m.png .*transparency"):
        read_mask(file_of(Image.fromarray(np.dstack([grey, rgb[..., 0]]))), name="m.png")


def test_the_sizes_of_picture_and_mask_are_those_of_the_upright_ones(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying, drawn = np.rot90(rgb), rgb[..., 0] > 128
    picture, mask, _ = read_with_mask(file_of(Image.fromarray(lying), exif=exif), encode_png(drawn))
    assert np.array_equal(picture.working, rgb)
    assert np.array_equal(mask, drawn)
    with pytest.raises(SizeMismatchError):
        read_with_mask(encode_png(lying), encode_png(drawn))


def test_sizes_are_compared_before_anything_is_decoded(rgb, monkeypatch):
    monkeypatch.setattr("doctogres.slides.tiff_pages.decode", None)
    small = encode_png(np.ones((4, 6), np.bool_))
    with pytest.raises(SizeMismatchError, match=r"^m has 6 x 4 pixels, p \d+ x \d+; give the mask of this picture"):
        read_with_mask(encode_png(rgb), small, name="p", mask_name="m")


def test_sixteen_bit_colours_of_a_mask_keep_their_low_byte():
    mask = np.zeros((8, 8, 3), np.uint16)
    mask[2:5] = 1
    assert read_mask(cv2.imencode(".tif", mask)[1].tobytes()).sum() == 24


def test_pixels_of_another_size_than_announced_are_an_error(rgb, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match="slide.png.* 20 x 30 pixels, but 30 x 20"):
        read_rgb(encode_png(rgb), name="slide.png")


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
