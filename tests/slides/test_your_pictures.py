"""Every row of docs/your-data.md's tables of pictures and masks, on a file of its kind."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from doctogres.slides.formats import ImageError
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from tests.slides.costly_files import costly_png, costly_tiff
from tests.slides.hostile_files import Tags, chunk, file_of, hostile_pictures, pages_of, strip_tags, tiff, with_chunk

PAGE = Path(__file__).parents[2] / "docs/your-data.md"
HEIGHT, WIDTH = 24, 32
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def drawn_slide(white: int = 193) -> np.ndarray:
    """Tissue on glass: (24, 32, 3) of 8-bit values, none above `white`."""
    rgb = np.full((HEIGHT, WIDTH, 3), white, np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (14, 18, 3))
    rgb[5:19, 6:24] = (np.array([110, 50, 90]) + noise).astype(np.uint8)
    return rgb


def tiny_biopsy() -> np.ndarray:
    """Tissue on 0.3 % of a picture, (300, 300, 3)."""
    rgb = np.full((300, 300, 3), 220, np.uint8)
    rgb[100:116, 100:116] = 150, 70, 120
    return rgb


SLIDE, BRIGHT = drawn_slide(), drawn_slide(255)
MASK = (ROWS > 6) & (ROWS < 14) & (COLUMNS > 8) & (COLUMNS < 20)
CORNER = (ROWS < 4) & (COLUMNS < 8)  # on glass
MANY = ~((ROWS > 6) & (ROWS < 10) & (COLUMNS > 8) & (COLUMNS < 14))  # far more than half
WHITE_CORNER = np.where(CORNER[..., None], 255, SLIDE).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The PNG of grey, RGB or RGBA values of 8 or 16 bits."""
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else ...
    return cv2.imencode(".png", pixels[..., order] if pixels.ndim == 3 else pixels)[1].tobytes()


def wide(rgb: np.ndarray, times: int, plus: int = 0) -> bytes:
    return png(rgb.astype(np.uint16) * times + plus)


def with_alpha(colours: np.ndarray, alpha: np.ndarray) -> bytes:
    return png(np.dstack([np.broadcast_to(colours, (*alpha.shape, 3)), alpha]).astype(np.uint8))


def on(ground: tuple[int, ...], colour: tuple[int, ...], where: np.ndarray) -> np.ndarray:
    return np.where(where[..., None], colour, ground).astype(np.uint8)


def indexed(indices: np.ndarray, kind: str = "PNG") -> bytes:
    image = Image.fromarray(indices.astype(np.uint8), "L")
    image.putpalette([40, 40, 40] * 256)
    return file_of(image, kind)


def tiff_of(values: np.ndarray, **tags: tuple[int, list[int]]) -> bytes:
    """An uncompressed TIFF of one strip; `t258=(3, [16])` is a tag."""
    height, width = values.shape
    data = values.tobytes()
    return tiff(strip_tags(width, height, t279=(4, [len(data)]), **tags), data)


def planes(values: np.ndarray, bits: int) -> bytes:
    """RGB as three planes in one page."""
    stored = values.astype(np.uint16) * 257 if bits == 16 else values
    plane = stored[..., 0].nbytes
    start = len(tiff(planar_tags(bits, [0] * 3, plane)))
    return tiff(
        planar_tags(bits, [start + plane * band for band in range(3)], plane), stored.transpose(2, 0, 1).tobytes()
    )


def planar_tags(bits: int, offsets: list[int], plane: int) -> Tags:
    colours = {"t258": (3, [bits] * 3), "t262": (3, [2]), "t277": (3, [3]), "t284": (3, [2])}
    return strip_tags(WIDTH, HEIGHT, t273=(4, offsets), t279=(4, [plane] * 3), **colours)


def described(*arrays: np.ndarray, text: str) -> bytes:
    return pages_of(*arrays, tiffinfo={270: text})


def marked_copy(kind: int) -> bytes:
    """A picture and a smaller page of something else; `kind` is its NewSubfileType."""
    first = file_of(Image.fromarray(SLIDE), "TIFF")
    small = tiff(strip_tags(16, 12, t254=(4, [kind])))  # its directory, behind the first page's bytes
    return joined(first, small)


def joined(first: bytes, second: bytes) -> bytes:
    """A TIFF with the directory of a second one, whose values fit into their entries, as its next page."""
    start = int.from_bytes(first[4:8], "little")
    count = int.from_bytes(first[start : start + 2], "little")
    place = start + 2 + 12 * count
    return first[:place] + len(first).to_bytes(4, "little") + first[place + 4 :] + second[8:]


def turned_page(values: np.ndarray) -> bytes:
    """Two pages of one size, of which the second lies on its side."""
    second = tiff(strip_tags(WIDTH, HEIGHT, t274=(3, [6]), t273=(4, [8])))
    return joined(file_of(Image.fromarray(values), "TIFF"), second)


GREYS = [SLIDE[..., band] for band in range(3)]
SMALL = Image.fromarray(SLIDE).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
DEEP = SLIDE[..., 0].astype(np.uint16) * 37  # neither bytes nor at the end of any scale
OME = '<?xml version="1.0"?><OME><Image><Pixels SizeX="32" SizeY="24" SizeZ="{z}" SizeC="{c}" SizeT="1">{more}</Pixels></Image></OME>'

Builder = Callable[[], list[tuple[bytes, np.ndarray | str]]]


def grey(values: np.ndarray) -> np.ndarray:
    return np.dstack([values] * 3)


PICTURES: dict[str, Builder] = {
    "8-bit RGB, grey, a palette, or black and white as bits": lambda: [
        (png(SLIDE), SLIDE),
        (file_of(Image.fromarray(SLIDE), "TIFF", big_tiff=True), SLIDE),
        (png(SLIDE[..., 0]), grey(SLIDE[..., 0])),
        (file_of(Image.fromarray(SLIDE[..., 0]).convert("P"), "PNG"), grey(SLIDE[..., 0])),
        (file_of(Image.fromarray(MASK), "PNG"), grey(MASK * np.uint8(255))),
    ],
    "an alpha channel that is opaque everywhere": lambda: [
        (with_alpha(SLIDE, np.full((HEIGHT, WIDTH), 255)), SLIDE),
        (file_of(Image.fromarray(SLIDE).convert("RGBA"), "TIFF"), SLIDE),
    ],
    "transparent areas over one flat colour, or over glass": lambda: [
        (with_alpha(SLIDE, np.where(CORNER, 0, 255)), WHITE_CORNER),
        (with_alpha(on((0, 0, 0), (0, 0, 0), MASK), np.zeros((HEIGHT, WIDTH))), np.full_like(SLIDE, 255)),
    ],
    "transparent areas that hide a picture, up to the whole slide": lambda: [
        (with_alpha(SLIDE, np.zeros((HEIGHT, WIDTH))), "transparency"),
        (with_alpha(SLIDE, np.where(MASK, 255, 0)), "transparency"),
        (with_alpha(tiny_biopsy(), np.zeros((300, 300))), "transparency"),
        (with_alpha(SLIDE, np.full((HEIGHT, WIDTH), 90)), "transparency"),
        (file_of(Image.fromarray(np.dstack([SLIDE, MASK * np.uint8(255)])), "TIFF"), "transparency"),
        (file_of(Image.fromarray(SLIDE).convert("P"), "PNG", transparency=bytes(256)), "transparency"),
        (file_of(Image.fromarray(np.dstack([SLIDE[..., 0], MASK * np.uint8(9)]), "LA"), "PNG"), "transparency"),
    ],
    "grey with one transparent value": lambda: [
        (file_of(Image.fromarray(SLIDE[..., 0]), "PNG", transparency=193), "colour_mode")
    ],
    "16-bit values that reach the upper half (32768 and more)": lambda: [
        (wide(SLIDE, 256, 91), SLIDE),
        (wide(SLIDE[..., 0], 256, 91), grey(SLIDE[..., 0])),
        (cv2.imencode(".tif", SLIDE[..., ::-1].astype(np.uint16) * 256 + 91)[1].tobytes(), SLIDE),
        (file_of(Image.fromarray(SLIDE[..., 0].astype(np.uint16) * 256 + 91), "TIFF"), grey(SLIDE[..., 0])),
    ],
    "10-, 12- or 14-bit values in 16 bits, of which the brightest reaches the end of the scale (4080 to 4095 for 12 bits)": (
        lambda: [
            (wide(BRIGHT, 4, 3), BRIGHT),
            (wide(BRIGHT, 16, 7), BRIGHT),
            (wide(BRIGHT, 64, 9), BRIGHT),
            (wide(BRIGHT[..., 0], 16, 15), grey(BRIGHT[..., 0])),
            (cv2.imencode(".tif", BRIGHT[..., ::-1].astype(np.uint16) * 16 + 5)[1].tobytes(), BRIGHT),
            (file_of(Image.fromarray(BRIGHT[..., 0].astype(np.uint16) * 64), "TIFF"), grey(BRIGHT[..., 0])),
            (pages_of(*(BRIGHT[..., band].astype(np.uint16) * 16 for band in range(3))), BRIGHT),
        ]
    ),
    "8-bit values stored in 16 bits, unchanged or multiplied by 4 or 16, that reach at least half of their scale": lambda: [
        (wide(SLIDE, 1), SLIDE),
        (wide(SLIDE, 4), SLIDE),
        (wide(SLIDE, 16), SLIDE),
        (cv2.imencode(".tif", SLIDE[..., ::-1].astype(np.uint16))[1].tobytes(), SLIDE),
    ],
    "8-bit values multiplied by 256 or 257 in 16 bits, however dark": lambda: [
        (wide(SLIDE // 16, 256), SLIDE // 16),
        (wide(SLIDE // 16, 257), SLIDE // 16),
    ],
    "9- to 15-bit values whose bits the file states: BitsPerSample, MaxSampleValue or OME's SignificantBits in a TIFF, sBIT "
    "in a PNG": lambda: [
        (tiff_of(DEEP, t258=(3, [16]), t281=(3, [16383])), grey((DEEP >> 6).astype(np.uint8))),
        (tiff_of(DEEP, t258=(3, [16]), t341=(3, [32767])), grey((DEEP >> 7).astype(np.uint8))),
        (
            described(DEEP // 2, text='<OME><Pixels SignificantBits="12"/></OME>'),
            grey((DEEP // 2 >> 4).astype(np.uint8)),
        ),
        (with_chunk(png(DEEP // 2), chunk(b"sBIT", b"\x0c")), grey((DEEP // 2 >> 4).astype(np.uint8))),
        (twelve_bit_tiff(DEEP // 2), grey((DEEP // 2 >> 4).astype(np.uint8))),
    ],
    "other 16-bit values that stay below 32768, a highest value of 9000 for example": lambda: [
        (png(DEEP), "bit_depth"),
        (wide(SLIDE, 15, 1), "bit_depth"),
        (wide(SLIDE, 64), "bit_depth"),
        (wide(SLIDE, 128, 3), "bit_depth"),
        (png(MASK.astype(np.uint16)), "bit_depth"),
        (cv2.imencode(".tif", grey(DEEP))[1].tobytes(), "bit_depth"),
        (tiff_of(DEEP, t258=(3, [16]), t281=(3, [int(DEEP.max())])), "bit_depth"),
        (tiff_of(DEEP, t258=(3, [16]), t281=(3, [4095])), "bit_depth"),
    ],
    "three grey pages of one size in a TIFF": lambda: [
        (pages_of(*GREYS), SLIDE),
        (pages_of(*GREYS, compression="tiff_lzw"), SLIDE),
        (pages_of(*GREYS, big_tiff=True), SLIDE),
        (described(*GREYS, text=OME.format(z=1, c=3, more='<Channel ID="1" Name="Red"/><Channel ID="2"/>')), SLIDE),
        (described(*GREYS, text="ImageJ=1.54f\nimages=3\nchannels=3\nmode=composite\n"), SLIDE),
        (described(*GREYS, text='{"axes": "CYX", "shape": [3, 24, 32]}'), SLIDE),
    ],
    "three grey pages that the file calls something else: a focus or time series, other channels": lambda: [
        (described(*GREYS, text=text), "several_pages")
        for text in (
            OME.format(z=3, c=1, more=""),
            OME.format(z=1, c=3, more='<Channel ID="1" Name="DAPI"/><Channel ID="2" Name="FITC"/>'),
            OME.format(z=1, c=3, more="</Pixels></Image><Image><Pixels>"),
            "ImageJ=1.54f\nimages=3\nslices=3\n",
            "ImageJ=1.54f\nimages=3\nframes=3\n",
            '{"axes": "ZYX", "shape": [3, 24, 32]}',
        )
    ],
    "smaller pages of a TIFF that are marked as copies (NewSubfileType, SubIFDs) or show the same picture": lambda: [
        (marked_copy(1), SLIDE),
        (marked_copy(9), SLIDE),
        (pages_of(SLIDE, SMALL), SLIDE),
        (pages_of(SLIDE, SMALL.resize((8, 6)), compression="tiff_adobe_deflate"), SLIDE),
        (pages_of(SLIDE, SLIDE[::4, ::4].copy()), SLIDE),
        (below(file_of(Image.fromarray(SLIDE), "TIFF", tiffinfo={330: 0}), tiff(strip_tags(16, 12))), SLIDE),
    ],
    "any other further page: of the same size, larger, or another picture": lambda: [
        (pages_of(SLIDE, SLIDE), "several_pages"),
        (pages_of(SLIDE, MASK), "several_pages"),
        (pages_of(*GREYS, GREYS[0]), "several_pages"),
        (pages_of(*GREYS[:2]), "several_pages"),
        (pages_of(MASK, MASK, MASK), "several_pages"),
        (pages_of(SMALL, SLIDE), "several_pages"),
        (pages_of(SLIDE, SMALL.transpose(Image.Transpose.ROTATE_180)), "several_pages"),
        (pages_of(SLIDE, SMALL.resize((9, 12))), "several_pages"),
        (pages_of(GREYS[0], GREYS[1], GREYS[2].astype(np.uint16) * 257), "several_pages"),
        (turned_page(GREYS[0]), "several_pages"),
        (marked_copy(0), "several_pages"),
        (marked_copy(4), "several_pages"),
        (described(GREYS[0], text="ImageJ=1.54f\nimages=30\nslices=30\n"), "several_pages"),
        (pages_of(*([Image.new("L", (1, 1))] * 300)), "several_pages"),
        (below(file_of(SMALL, "TIFF", tiffinfo={330: 0}), tiff(strip_tags(32, 24))), "several_pages"),
    ],
    "colours in separate planes (PlanarConfiguration 2), 8-bit": lambda: [(planes(SLIDE, 8), SLIDE)],
    "colours in separate planes, 16-bit; 16-bit grey of which 0 is white; signed values": lambda: [
        (planes(SLIDE, 16), "colour_mode"),
        (tiff_of(DEEP, t258=(3, [16]), t262=(3, [0])), "colour_mode"),
        (tiff_of(SLIDE[..., 0], t339=(3, [2])), "colour_mode"),
    ],
    "CMYK, Lab, floating-point or 32-bit values; a lossless or 12-bit JPEG": lambda: [
        (file_of(Image.fromarray(SLIDE).convert("CMYK"), "TIFF"), "colour_mode"),
        (file_of(Image.fromarray(SLIDE).convert("CMYK"), "JPEG"), "colour_mode"),
        (file_of(Image.fromarray(SLIDE).convert("LAB"), "TIFF"), "colour_mode"),
        (file_of(Image.fromarray(SLIDE[..., 0]).convert("F"), "TIFF"), "colour_mode"),
        (file_of(Image.fromarray(SLIDE[..., 0]).convert("I"), "TIFF"), "colour_mode"),
        (cv2.imencode(".tif", SLIDE.astype(np.float32))[1].tobytes(), "colour_mode"),
        (hostile_pictures()["sof-lossless.jpg"], "colour_mode"),
        (hostile_pictures()["sof-twelve-bits.jpg"], "colour_mode"),
    ],
    "far more pixels than a file of its size can hold": lambda: [
        (costly_png("grey-1")(13_000, 13_000), "costly"),
        (costly_tiff("rgb", rows=16)(13_000, 13_000), "costly"),
    ],
    "a side of more than 100,000 pixels": lambda: [
        (costly_png("grey-1")(100_001, 3), "too_many_pixels"),
        (costly_tiff("grey")(3, 100_001), "too_many_pixels"),
    ],
    "a TIFF compressed as JPEG 2000 (33003, 33005, 34712), JPEG XL, WebP, LERC, ...": lambda: [
        (tiff_of(SLIDE[..., 0], t259=(3, [scheme])), "unsupported_compression")
        for scheme in (33003, 33005, 34712, 50002, 50001, 34887, 12345)
    ],
}

BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 10, 30)
HALF_CLEAR = np.where(MASK, 255, 0)
MOSTLY = np.where(MANY, 255, 0)
LEFT, RIGHT = MASK & (COLUMNS < 14), MASK & (COLUMNS >= 14)

MASKS: dict[str, Builder] = {
    "0 for background and 1, 255 or the white of 10, 12, 14 or 16 bits for lesions": lambda: [
        *((png(MASK * np.uint8(white)), MASK) for white in (1, 255)),
        *((png(MASK * np.uint16(white)), MASK) for white in (1, 255, 1023, 4095, 16383, 65535)),
    ],
    "two colours, of which one is black": lambda: [(png(on(BLACK, RED, MASK)), MASK)],
    "a JPEG whose values lie near 0 and 255": lambda: [
        (file_of(Image.fromarray(MASK).convert("L"), "JPEG", quality=95), MASK)
    ],
    "other grey values (a smoothed edge, classes), or more colours": lambda: [
        (png(cv2.GaussianBlur(MASK * np.uint8(255), (3, 3), 0)), "mask_values"),
        (png(MASK * np.uint8(1) + RIGHT), "mask_values"),
        (png(on(WHITE, RED, MASK)), "mask_values"),
    ],
    "CMYK, Lab, floating-point or 32-bit values": lambda: [
        (file_of(Image.fromarray(MASK).convert(mode), "TIFF"), "colour_mode") for mode in ("CMYK", "F", "I")
    ],
    "more than 100 million pixels in colours, in a file below 1 MB": lambda: [
        (costly_png("rgb-8")(10_500, 10_000), "costly"),
        (costly_tiff("rgba", rows=16)(10_500, 10_000), "costly"),
    ],
    "lesions in one opaque colour, also black, on a transparent ground; at most half of the picture": lambda: [
        *(
            (with_alpha(on(ground, colour, MASK), HALF_CLEAR), MASK)
            for ground in (BLACK, WHITE)
            for colour in (RED, BLACK, WHITE)
        ),
        (with_alpha(on(BLACK, BLACK, MASK), np.where(MASK, 128, 0)), MASK),
        (file_of(Image.fromarray(np.dstack([on(WHITE, BLACK, MASK), HALF_CLEAR]).astype(np.uint8)), "TIFF"), MASK),
        (file_of(Image.fromarray(np.dstack([~MASK * 255, HALF_CLEAR]).astype(np.uint8), "LA"), "PNG"), MASK),
        (file_of(Image.fromarray(np.where(MASK, 0, 255).astype(np.uint8)), "PNG", transparency=255), MASK),
        (file_of(Image.fromarray(~MASK), "PNG", transparency=1), MASK),
        (file_of(palette_of(MASK, WHITE, BLACK), "PNG", transparency=bytes([0, 255])), MASK),
    ],
    "the same over more than half, in a colour on hidden black": lambda: [
        (with_alpha(on(BLACK, RED, MANY), MOSTLY), MANY)
    ],
    "the same over more than half, in black or in the colour of what is hidden": lambda: [
        (with_alpha(on(WHITE, BLACK, MANY), MOSTLY), "mask_values"),
        (with_alpha(on(BLACK, BLACK, MANY), MOSTLY), "mask_values"),
        (with_alpha(on(WHITE, WHITE, MANY), MOSTLY), "mask_values"),
    ],
    "black and one colour, and transparent areas over hidden black": lambda: [
        (with_alpha(on(BLACK, RED, MASK), np.where(CORNER, 0, 255)), MASK)
    ],
    "black and one colour, and transparent areas over another hidden colour": lambda: [
        (with_alpha(np.where(CORNER[..., None], 255, on(BLACK, WHITE, MASK)), np.where(CORNER, 0, 255)), "mask_values")
    ],
    "several degrees of transparency, or colours that are transparent everywhere": lambda: [
        (with_alpha(on(BLACK, RED, MASK), cv2.GaussianBlur(MASK * np.uint8(255), (3, 3), 0)), "mask_values"),
        (with_alpha(on(BLACK, BLACK, MASK), np.where(MASK, 255, 90)), "mask_values"),
        (with_alpha(on(BLACK, WHITE, MASK), np.zeros((HEIGHT, WIDTH))), "mask_values"),
    ],
    "a palette whose colours are all the same, and two indices of which one is 0": lambda: [
        (indexed(MASK), MASK),
        (indexed(MASK * 7), MASK),
        (indexed(MASK, "TIFF"), MASK),
    ],
    "a palette whose colours are all the same, and more indices": lambda: [
        (indexed(MASK * 1 + RIGHT), "mask_values"),
        (indexed(MASK + 1), "mask_values"),
    ],
    "pages of one size in a TIFF": lambda: [
        (pages_of(LEFT, RIGHT), MASK),
        (pages_of(LEFT * np.uint8(255), RIGHT * np.uint8(255), LEFT * np.uint8(255), compression="tiff_lzw"), MASK),
        (pages_of(MASK * np.uint8(255), MASK[::2, ::2] * np.uint8(255)), MASK),
    ],
    "pages that together mark every pixel, as with a page for the background": lambda: [
        (pages_of(~MASK, LEFT, RIGHT), "several_pages"),
    ],
    "pages of other sizes or orientations, unless a smaller one shows the same": lambda: [
        (pages_of(MASK, ~MASK[::2, ::2]), "several_pages"),
        (pages_of(MASK[::2, ::2], MASK), "several_pages"),
        (turned_page(MASK * np.uint8(255)), "several_pages"),
    ],
}


def palette_of(indices: np.ndarray, *colours: tuple[int, ...]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "L")
    image.putpalette([value for colour in colours for value in colour])
    return image


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """Grey values packed in 12 bits."""
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    packed = np.packbits(bits.ravel()).tobytes()
    return tiff(strip_tags(WIDTH, HEIGHT, t258=(3, [12]), t279=(4, [len(packed)])), packed)


def below(first: bytes, second: bytes) -> bytes:
    """A TIFF with the directory of a second one as its SubIFD (tag 330, whose value is 0)."""
    start = int.from_bytes(first[4:8], "little")
    place = first.index(b"\x4a\x01", start) + 8
    return first[:place] + len(first).to_bytes(4, "little") + first[place + 4 :] + second[8:]


def check(read: Callable[..., np.ndarray], data: bytes, expected: np.ndarray | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(ImageError, match=r"^slide 7 .*; ") as error:
            read(data, name="slide 7")
        assert error.value.code == expected
        assert "damaged" not in str(error.value)
    else:
        assert np.array_equal(read(data, name="slide 7"), expected)


@pytest.mark.parametrize("row", PICTURES)
def test_a_picture_is_read_as_the_row_says(row: str) -> None:
    for data, expected in PICTURES[row]():
        check(read_rgb, data, expected)


@pytest.mark.parametrize("row", MASKS)
def test_a_mask_is_read_as_the_row_says(row: str) -> None:
    for data, expected in MASKS[row]():
        check(read_mask, data, expected)


def test_the_tables_have_these_rows() -> None:
    section = PAGE.read_text("utf-8").split("## Pictures and masks")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE))
    del rows["a picture holds"], rows["a mask holds"]
    assert list(rows) == [*PICTURES, *MASKS]
    for row, build in (PICTURES | MASKS).items():
        refused = [expected for _, expected in build() if isinstance(expected, str)]
        assert bool(refused) == rows[row].startswith("refused")
        assert not refused or f"`{refused[0]}`" in rows[row]
