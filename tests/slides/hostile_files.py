"""Small pictures of every kind, damage done to them with a seed, and files that no honest program writes."""

import io
import random
import stat
import struct
import zipfile
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from doctogres.slides.formats import read_header

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 2**31 - 1
Tags = dict[int, tuple[int, list[Any]]]  # a type and values


def announced_size(data: bytes, *, name: str = "p") -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone."""
    header = read_header(data, name)
    return header.width, header.height


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pages_of(*arrays: np.ndarray | Image.Image, **options: Any) -> bytes:
    """A TIFF with a page for each array or image."""
    pages = [Image.fromarray(page) if isinstance(page, np.ndarray) else page for page in arrays]
    return file_of(pages[0], "TIFF", save_all=True, append_images=pages[1:], **options)


def with_chunk(data: bytes, added: bytes) -> bytes:
    """A PNG with a chunk before its pixels."""
    place = data.index(b"IDAT") - 4
    return data[:place] + added + data[place:]


def chunk(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=0, *, interlace=0, rows=bytes(4096), before=b"", after=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND")


def png_chunks(data):
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def tiff(tags: Tags, pixels: bytes = b"", *, order: str = "<", following: int = 0, count: int | None = None) -> bytes:
    """A TIFF of one directory: {tag: (type, values)}; "here" among the values is the place of the pixels."""
    codes = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 16: "Q"}
    lines, outside = b"", b""
    after = 8 + 2 + 12 * len(tags) + 4
    sizes = [struct.calcsize(f"{order}{len(values)}{codes.get(kind, 'I')}") for kind, values in tags.values()]
    here = after + sum(size for size in sizes if size > 4)
    for tag, (kind, values) in sorted(tags.items()):
        numbers = [here if value == "here" else value for value in values]
        packed = struct.pack(f"{order}{len(numbers)}{codes.get(kind, 'I')}", *numbers)
        lines += struct.pack(order + "HHI", tag, kind, len(numbers))
        if len(packed) > 4:
            lines += struct.pack(order + "I", after + len(outside))
            outside += packed
        else:
            lines += packed.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(
        order + "HIH", 42, 8, len(tags) if count is None else count
    )
    return start + lines + struct.pack(order + "I", following) + outside + pixels


def strip_tags(width: int = 16, height: int = 16, **changed: Any) -> Tags:
    """The tags of a grey 8-bit TIFF in one strip; `t258=(3, [1])` replaces a tag, `t258=None` takes it away."""
    tags: dict[int, Any] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8]),
        259: (3, [1]),
        262: (3, [1]),
        273: (4, ["here"]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [min(width * height, 2**32 - 1)]),
    }
    tags |= {int(name[1:]): value for name, value in changed.items()}
    return {tag: value for tag, value in tags.items() if value is not None}


def tile_tags(width=64, height=64, tile=32, **changed):
    tiles = -(-width // tile) * -(-height // tile) if tile else 1
    tiled = {
        "t322": (3, [tile]),
        "t323": (3, [tile]),
        "t324": (4, ["here"] * tiles),
        "t325": (4, [tile * tile] * tiles),
        "t273": None,
        "t278": None,
        "t279": None,
    }
    return strip_tags(width, height, **(tiled | changed))


def valid_pictures():
    """{name: file}: what a scanner or an annotation tool may write."""
    numbers = np.random.default_rng(0)
    rgb = numbers.integers(0, 256, (17, 23, 3), np.uint8)
    rgba = np.dstack([rgb, np.full((17, 23), 255, np.uint8)])
    rgba[:5, :9] = 90, 90, 90, 0
    drawn = np.zeros((17, 23, 4), np.uint8)
    drawn[4:9, 3:12, 3] = 255
    dark = numbers.integers(0, 4096, (17, 23), np.uint16)
    dark[0, 0] = 4095
    one_colour = Image.fromarray((rgb[..., 0] > 127).astype(np.uint8))
    one_colour.putpalette([0] * 768)
    deep = numbers.integers(0, 65536, (17, 23), np.uint16)
    picture, grey, mask = Image.fromarray(rgb), Image.fromarray(rgb[..., 0]), Image.fromarray(rgb[..., 0] > 127)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "rgb.png": file_of(picture, "PNG"),
        "grey.png": file_of(grey, "PNG"),
        "bits.png": file_of(mask, "PNG"),
        "palette.png": file_of(picture.convert("P"), "PNG"),
        "clear-palette.png": file_of(picture.convert("P"), "PNG", transparency=3),
        "clear-rgb.png": file_of(picture, "PNG", transparency=(1, 2, 3)),
        "grey-alpha.png": file_of(picture.convert("LA"), "PNG"),
        "rgba.png": file_of(Image.fromarray(rgba), "PNG"),
        "deep.png": file_of(Image.fromarray(deep), "PNG"),
        "deep-rgb.png": cv2.imencode(".png", rgb.astype(np.uint16) * 257)[1].tobytes(),
        "deep-rgba.png": cv2.imencode(".png", rgba.astype(np.uint16) * 257)[1].tobytes(),
        "turned.png": file_of(picture, "PNG", exif=turned),
        "text.png": png(4, 4, before=chunk(b"tEXt", b"Title\0slide") + chunk(b"gAMA", struct.pack(">I", 45455))),
        "animated.png": file_of(picture, "PNG", save_all=True, append_images=[picture.rotate(90)]),
        "interlaced.png": png(5, 5, interlace=1, rows=bytes(64)),
        "rgb.jpg": file_of(picture, "JPEG"),
        "grey.jpg": file_of(grey, "JPEG"),
        "progressive.jpg": file_of(picture, "JPEG", progressive=True),
        "restarts.jpg": file_of(picture, "JPEG", restart_marker_blocks=1),
        "cmyk.jpg": file_of(picture.convert("CMYK"), "JPEG"),
        "turned.jpg": file_of(picture, "JPEG", exif=turned),
        "float.tif": file_of(grey.convert("F"), "TIFF"),
        "cmyk.tif": file_of(picture.convert("CMYK"), "TIFF"),
        "rgba.tif": file_of(Image.fromarray(rgba), "TIFF"),
        "deep.tif": file_of(Image.fromarray(deep), "TIFF"),
        "deep-deflate.tif": file_of(Image.fromarray(deep), "TIFF", compression="tiff_adobe_deflate"),
        "turned.tif": file_of(picture, "TIFF", exif=turned),
        "palette.tif": file_of(picture.convert("P"), "TIFF"),
        "fax.tif": file_of(mask, "TIFF", compression="group4"),
        "bits.tif": file_of(mask, "TIFF"),
        "pages.tif": file_of(picture.copy(), "TIFF", save_all=True, append_images=[grey.copy()]),
        "channels.tif": pages_of(*(rgb[..., channel] for channel in range(3))),
        "deep-channels.tif": pages_of(deep, deep, deep),
        "lesions.tif": pages_of(*(np.arange(391).reshape(17, 23) // 80 == part for part in range(4))),
        "pyramid.tif": pages_of(rgb, picture.resize((11, 8), Image.Resampling.BOX), compression="tiff_adobe_deflate"),
        "big-channels.tif": pages_of(*(rgb[..., channel] for channel in range(3)), big_tiff=True),
        "twelve.png": file_of(Image.fromarray(dark), "PNG"),
        "twelve-stated.png": with_chunk(file_of(Image.fromarray(dark // 2), "PNG"), chunk(b"sBIT", b"\x0c")),
        "twelve.tif": cv2.imencode(".tif", np.dstack([dark] * 3))[1].tobytes(),
        "drawn.png": file_of(Image.fromarray(drawn), "PNG"),
        "drawn.tif": file_of(Image.fromarray(drawn), "TIFF"),
        "one-colour.png": file_of(one_colour, "PNG"),
        "one-colour.tif": file_of(one_colour, "TIFF"),
        "clear-grey.png": file_of(Image.fromarray(drawn[..., 3]), "PNG", transparency=0),
        "big.tif": file_of(picture, "TIFF", big_tiff=True),
        "tiled.tif": tiff(tile_tags(), bytes(range(256)) * 16),
        "motorola.tif": tiff(strip_tags(), bytes(range(256)), order=">"),
    }
    for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"):
        files[f"{way}.tif"] = file_of(picture, "TIFF", compression=None if way == "raw" else way)
    return files


def hostile_pictures():
    """{name: file}: headers that lie, or that ask a reader for what it cannot give."""
    whole = valid_pictures()
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    zeros = zlib.compress(bytes(20_000_000))
    files = {
        f"ihdr-{width}-{height}-{depth}-{colour}.png": png(width, height, depth, colour)
        for width, height, depth, colour in [
            *((size, other, 8, 0) for size in (0, MOST, 2**31, 2**32 - 1) for other in (4, size)),
            (1_000_001, 4, 8, 2),
            (4, 1_000_001, 8, 2),
            *((4, 4, depth, 0) for depth in (0, 3, 32, 255)),
            *((4, 4, 8, colour) for colour in (1, 3, 5, 7, 255)),
            (4, 4, 16, 3),
            (13_000, 14_600, 8, 2),
            (13_000, 14_600, 16, 6),
        ]
    }
    files |= {
        "idat-lies-long.png": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"x", MOST) + chunk(b"IEND"),
        "idat-lies-short.png": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"x" * 50, 7) + chunk(b"IEND"),
        "idat-none.png": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IEND"),
        "idat-empty.png": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT") + chunk(b"IEND"),
        "idat-bomb.png": SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zeros) + chunk(b"IEND"),
        "idat-too-few-rows.png": png(4, 4000, rows=bytes(40)),
        "ihdr-twice.png": png(4, 4, before=chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
        "ihdr-after-idat.png": png(4, 4, after=chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
        "ihdr-short.png": SIGNATURE + chunk(b"IHDR", header[:8]) + chunk(b"IEND"),
        "ihdr-not-first.png": SIGNATURE + chunk(b"tEXt", b"a\0b") + png(4, 4)[8:],
        "text-bomb.png": png(4, 4, before=chunk(b"zTXt", b"a\0\0" + zeros)),
        "profile-bomb.png": png(4, 4, before=chunk(b"iCCP", b"a\0\0" + zeros)),
        "international-bomb.png": png(4, 4, before=chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)),
        "many-chunks.png": png(4, 4, before=chunk(b"vpAg") * 5000),
        "palette-none.png": png(4, 4, 8, 3),
        "palette-odd.png": png(4, 4, 8, 3, before=chunk(b"PLTE", bytes(7))),
        "palette-short.png": png(4, 4, 8, 3, rows=bytes([0, 9, 9, 9, 9]) * 4, before=chunk(b"PLTE", bytes(3))),
        "clear-long.png": png(4, 4, 8, 3, before=chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(300))),
        "clear-short.png": png(4, 4, 8, 2, before=chunk(b"tRNS", b"\0")),
        "frames-many.png": png(4, 4, before=chunk(b"acTL", struct.pack(">II", MOST, 0))),
        "frame-larger.png": png(
            4,
            4,
            before=chunk(b"acTL", struct.pack(">II", 2, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 5000, 5000, 0, 0, 1, 1, 0, 0)),
        ),
        "frame-outside.png": png(
            4,
            4,
            before=chunk(b"acTL", struct.pack(">II", 2, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 4, 4, MOST, MOST, 1, 1, 0, 0)),
        ),
        "exif-odd.png": png(4, 4, before=chunk(b"eXIf", b"II*\0" + b"\xff" * 8)),
        "exif-loop.png": png(4, 4, before=chunk(b"eXIf", tiff({0x0112: (3, [6])}, following=8))),
        "exif-text.png": png(4, 4, before=chunk(b"eXIf", tiff({0x0112: (2, list(b"sixth"))}))),
        "physics-odd.png": png(4, 4, before=chunk(b"pHYs", b"\0") + chunk(b"cHRM", b"\0") + chunk(b"bKGD")),
        "behind-the-end.png": whole["rgb.png"] + bytes(1000),
    }
    jpeg = whole["grey.jpg"]
    frame = jpeg.index(b"\xff\xc0")
    scan = jpeg.index(b"\xff\xda")

    def sized(high, wide):
        return jpeg[: frame + 5] + struct.pack(">HH", high, wide) + jpeg[frame + 9 :]

    files |= {
        "sof-largest.jpg": sized(65535, 65535),
        "sof-large.jpg": sized(13_000, 14_600),
        "sof-zero.jpg": sized(0, 0),
        "sof-no-height.jpg": sized(0, 23),
        "sof-none.jpg": jpeg[:frame] + jpeg[scan:],
        "sof-twice.jpg": jpeg[:scan] + sized(9, 9)[frame:scan] + jpeg[scan:],
        "sof-twelve-bits.jpg": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "sof-no-components.jpg": jpeg[: frame + 9] + b"\0" + jpeg[frame + 10 :],
        "sof-many-components.jpg": jpeg[: frame + 9] + b"\xff" + jpeg[frame + 10 :],
        "sof-lossless.jpg": jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :],
        "sof-arithmetic.jpg": jpeg[: frame + 1] + b"\xc9" + jpeg[frame + 2 :],
        "sampling-zero.jpg": jpeg[: frame + 11] + b"\0" + jpeg[frame + 12 :],
        "sampling-fifteen.jpg": jpeg[: frame + 11] + b"\xff" + jpeg[frame + 12 :],
        "sos-none.jpg": jpeg[:scan] + b"\xff\xd9",
        "sos-empty.jpg": jpeg[: scan + 10] + b"\xff\xd9",
        "scans-many.jpg": jpeg[:-2] + jpeg[scan:-2] * 500 + b"\xff\xd9",
        "restarts-many.jpg": jpeg[:-2] + b"\xff\xd0\xff\xd1" * 20_000 + b"\xff\xd9",
        "tables-none.jpg": b"\xff\xd8" + jpeg[frame:],
        "length-zero.jpg": b"\xff\xd8\xff\xe0\0\0" + jpeg[2:],
        "length-beyond.jpg": b"\xff\xd8\xff\xe1\xff\xff" + jpeg[2:],
        "exif-odd.jpg": b"\xff\xd8\xff\xe1\0\x14Exif\0\0MM\0*" + b"\xff" * 8 + jpeg[2:],
        "exif-empty.jpg": b"\xff\xd8\xff\xe1\0\x08Exif\0\0" + jpeg[2:],
        "photoshop-odd.jpg": b"\xff\xd8\xff\xed\0\x16Photoshop 3.0\0" + b"8BIM" + jpeg[2:],
        "adobe-odd.jpg": b"\xff\xd8\xff\xee\0\x07Adobe" + jpeg[2:],
        "pictures-many.jpg": b"\xff\xd8\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\xff\xff" + jpeg[2:],
        "fills-many.jpg": b"\xff\xd8" + b"\xff" * 100_000 + jpeg[3:],
    }
    grey = bytes(range(256))
    files |= {
        "loop.tif": tiff(strip_tags(), grey, following=8),
        "loop-alone.tif": tiff({}, following=8),
        "pages-many.tif": tiff(strip_tags(), grey, following=378)
        + b"".join(struct.pack("<HI", 0, 384 + 6 * page) for page in range(50_000)),
        "ifd-beyond.tif": b"II*\0" + struct.pack("<I", 2**32 - 1),
        "ifd-in-header.tif": b"II*\0" + struct.pack("<I", 0) + grey,
        "entries-many.tif": tiff(strip_tags(), grey, count=65535),
        "size-zero.tif": tiff(strip_tags(t256=(4, [0])), grey),
        "size-most.tif": tiff(strip_tags(MOST, MOST, t278=(4, [16])), grey),
        "size-wide.tif": tiff(strip_tags(2**32 - 1, 1), grey),
        "size-large.tif": tiff(strip_tags(13_000, 14_600), grey),
        "size-negative.tif": tiff(strip_tags(t256=(6, [-5])), grey),
        "size-none.tif": tiff(strip_tags(t256=None), grey),
        "size-wrong-type.tif": tiff(strip_tags(t256=(2, list(b"wide"))), grey),
        "size-float.tif": tiff(strip_tags(t256=(11, [0x7F800000])), grey),
        "size-rational.tif": tiff(strip_tags(t256=(5, [16, 0])), grey),
        "size-many.tif": tiff(strip_tags(t256=(4, [16] * 50)), grey),
        "bits-none.tif": tiff(strip_tags(t258=(3, [0])), grey),
        "bits-many.tif": tiff(strip_tags(t258=(3, [65535])), grey),
        "bits-four.tif": tiff(strip_tags(t258=(3, [4])), grey),
        "bits-uneven.tif": tiff(strip_tags(t258=(3, [8, 16, 1]), t277=(3, [3]), t262=(3, [2])), grey * 4),
        "samples-many.tif": tiff(strip_tags(t277=(3, [65535])), grey),
        "samples-none.tif": tiff(strip_tags(t277=(3, [0])), grey),
        "strips-beyond.tif": tiff(strip_tags(t273=(4, [2**32 - 2])), grey),
        "strips-in-header.tif": tiff(strip_tags(t273=(4, [0])), grey),
        "strips-none.tif": tiff(strip_tags(t273=None), grey),
        "strips-many.tif": tiff(strip_tags(t273=(4, ["here"] * 999)), grey),
        "strip-bytes-huge.tif": tiff(strip_tags(t279=(4, [2**32 - 1])), grey),
        "strip-bytes-none.tif": tiff(strip_tags(t279=None), grey),
        "strip-bytes-zero.tif": tiff(strip_tags(t279=(4, [0])), grey),
        "strip-rows-zero.tif": tiff(strip_tags(t278=(4, [0])), grey),
        "strip-rows-most.tif": tiff(strip_tags(t278=(4, [2**32 - 1])), grey),
        "tile-zero.tif": tiff(tile_tags(tile=0), grey),
        "tile-huge.tif": tiff(tile_tags(t322=(4, [2**30]), t323=(4, [2**30])), grey),
        "tile-large.tif": tiff(tile_tags(t322=(4, [40_000]), t323=(4, [40_000])), grey),
        "tile-odd.tif": tiff(tile_tags(tile=15), grey * 99),
        "tile-few.tif": tiff(tile_tags(t324=(4, ["here"])), grey),
        "tile-and-strip.tif": tiff(strip_tags(t322=(3, [16])), grey),
        "orientation-ninth.tif": tiff(strip_tags(t274=(3, [9])), grey),
        "orientation-text.tif": tiff(strip_tags(t274=(2, list(b"sixth"))), grey),
        "palette-none.tif": tiff(strip_tags(t262=(3, [3])), grey),
        "palette-short.tif": tiff(strip_tags(t262=(3, [3]), t320=(3, [1] * 7)), grey),
        "float-grey.tif": tiff(strip_tags(t258=(3, [32]), t339=(3, [3])), grey * 4),
        "double.tif": tiff(strip_tags(t258=(3, [64]), t339=(3, [3])), grey * 8),
        "signed.tif": tiff(strip_tags(t339=(3, [2])), grey),
        "planes.tif": tiff(strip_tags(t277=(3, [3]), t262=(3, [2]), t284=(3, [2])), grey * 4),
        "lab.tif": tiff(strip_tags(t258=(3, [8, 8, 8]), t277=(3, [3]), t262=(3, [8])), grey * 4),
        "photometric-odd.tif": tiff(strip_tags(t262=(3, [32803])), grey),
        "predictor-odd.tif": tiff(strip_tags(t259=(3, [5]), t317=(3, [99])), grey),
        "many-tags.tif": tiff(strip_tags() | {60_000 + tag: (4, [tag]) for tag in range(2000)}, grey),
        "count-most.tif": tiff(strip_tags(), grey).replace(
            struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 279, 4, 2**32 - 1)
        ),
        "big-ifd-beyond.tif": b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63),
        "big-count-most.tif": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1) + grey,
    }
    files |= hostile_pages(grey)
    for scheme in (
        33003,
        33005,
        52546,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        32773,
        32809,
        34712,
        34887,
        34925,
        50000,
        50001,
        50002,
        65535,
    ):
        files[f"compression-{scheme}.tif"] = tiff(strip_tags(t259=(3, [scheme])), grey)
    for scheme in (5, 7, 8, 32773):
        files[f"compression-{scheme}-large.tif"] = tiff(strip_tags(13_000, 14_600, t259=(3, [scheme])), grey)
    return files


def hostile_pages(grey):
    """{name: TIFF}: chains and trees of pages that lie, and descriptions."""
    end = len(tiff(strip_tags(), grey))  # where a further directory can begin
    further = tiff(strip_tags(13_000, 14_600, t273=(4, [8])))[8:]

    def followed(by, **changed):
        tags = strip_tags(**changed)
        return tiff(tags, grey, following=len(tiff(tags, grey))) + by

    empty = struct.pack("<H", 0)
    chain = b"".join(empty + struct.pack("<I", end + 6 * page) for page in range(1, 400))
    copies = b"".join(
        tiff(strip_tags(t273=(4, [8])), following=(end + 114 * page) % (end + 114 * 200))[8:] for page in range(1, 201)
    )
    return {
        "next-beyond.tif": tiff(strip_tags(), grey, following=2**32 - 2),
        "next-in-header.tif": tiff(strip_tags(), grey, following=1),
        "next-in-pixels.tif": tiff(strip_tags(), grey, following=end - 60),
        "next-large.tif": followed(further),
        "next-cut.tif": followed(further[:40]),
        "next-empty.tif": followed(empty + bytes(4)),
        "next-itself.tif": followed(empty + struct.pack("<I", end)),
        "next-back.tif": followed(further[:-4] + struct.pack("<I", 8)),
        "next-lying-count.tif": followed(struct.pack("<H", 65535) + bytes(200)),
        "chain-long.tif": followed(chain),
        "chain-of-copies.tif": followed(copies),
        "overlapping.tif": followed(bytes(3) + struct.pack("<H", 300) + bytes(12 * 40)),
        "reduced-first.tif": followed(further, t254=(4, [1])),
        "reduced-alone.tif": tiff(strip_tags(t254=(4, [1])), grey),
        "below-itself.tif": tiff(strip_tags(t330=(4, [8])), grey),
        "below-beyond.tif": tiff(strip_tags(t330=(4, [2**32 - 1])), grey),
        "below-many.tif": tiff(strip_tags(t330=(4, [8] * 5000)), grey),
        "description-beyond.tif": tiff(strip_tags(t270=(4, [2**31] * 3)), grey).replace(
            struct.pack("<HHI", 270, 4, 3), struct.pack("<HHI", 270, 2, 2**31)
        ),
        "description-odd.tif": tiff(strip_tags(t270=(1, [0xFF] * 40)), grey),
        "stack-stated.tif": tiff(strip_tags(t270=(1, list(b"ImageJ=1\nimages=99999999999\n"))), grey).replace(
            struct.pack("<HHI", 270, 1, 28), struct.pack("<HHI", 270, 2, 28)
        ),
        "stack-digits.tif": pages_of(*[np.zeros((4, 4), np.uint8)] * 3, tiffinfo={270: "ImageJ\nimages=" + "9" * 9000}),
        "channels-endless.tif": pages_of(
            *[np.zeros((4, 4), np.uint8)] * 3, tiffinfo={270: "<OME" + "<Channel " * 99_000}
        ),
        "most-odd.tif": tiff(strip_tags(t281=(11, [1]), t341=(12, [1, 2]), t258=(3, [16]), t279=(4, [512])), grey * 2),
        "bits-stated.png": with_chunk(png(4, 4, 16, rows=bytes(36)), chunk(b"sBIT", b"")),
        "bits-stated-zero.png": with_chunk(png(4, 4, 16, rows=bytes([0, *[0, 9] * 4] * 4)), chunk(b"sBIT", b"\0")),
        "bits-stated-most.png": with_chunk(png(4, 4, 16, rows=bytes([0, *[0, 9] * 4] * 4)), chunk(b"sBIT", b"\xff")),
    }


def zip_of(*members, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content) pairs."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content, compress_type=method)
    return stream.getvalue()


def _special(name, kind):
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (kind | 0o644) << 16
    return member


def patched(data, offset, packed):
    """A zip of one member with `packed` written over its entry in the central directory."""
    place = data.index(b"PK\1\2") + offset
    return data[:place] + packed + data[place + len(packed) :]


def valid_zip():
    return zip_of(("slides/", b""), ("slides/img_0000.png", b"picture" * 40), ("slides/mask_0000.png", b"mask"))


def hostile_zips():
    """{name: zip}: what must not be unpacked."""
    plain = zip_of(("name.png", b"content" * 9))
    loud = zip_of(("name.png", bytes(2_000_000)))
    outside = (
        "../x",
        "a/../../x",
        "/tmp/doctogres-x",
        "C:\\x",
        "C:x",
        "..\\x",
        "\\\\host\\x",
        "a\\..\\..\\x",
        "..",
        "../",
    )
    files = {f"outside-{place}.zip": zip_of((name, b"x")) for place, name in enumerate(outside)}
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
        files[f"kind-{kind}.zip"] = zip_of((_special("a", kind), b"/etc/passwd"), ("a/b", b"x"))
    head, entry, tail = plain[: plain.index(b"PK\1\2")], plain[plain.index(b"PK\1\2") : -22], plain[-22:]
    shared = head + entry * 2 + tail[:8] + struct.pack("<HHII", 2, 2, 2 * len(entry), len(head)) + tail[20:]
    return files | {
        "twice.zip": zip_of(("b", b"x"), ("./b", b"y")),
        "case.zip": zip_of(("a.png", b"x"), ("A.png", b"y")),
        "file-then-folder.zip": zip_of(("a", b"x"), ("a/b", b"y")),
        "folder-then-file.zip": zip_of(("a/b", b"x"), ("a", b"y")),
        "itself.zip": zip_of((".", b"x")),
        "shared-bytes.zip": shared,
        "ratio.zip": zip_of(("a", bytes(80_000_000))),
        "size-too-small.zip": patched(loud, 24, struct.pack("<I", 10)),
        "size-too-large.zip": patched(plain, 24, struct.pack("<I", 10_000)),
        "size-most.zip": patched(plain, 24, struct.pack("<I", 2**32 - 2)),
        "offset-beyond.zip": patched(plain, 42, struct.pack("<I", 2**31)),
        "crc.zip": patched(plain, 16, b"1234"),
        "encrypted.zip": patched(plain, 8, struct.pack("<H", 1)),
        "not-unicode.zip": patched(patched(plain, 8, struct.pack("<H", 0x800)), 46, b"\xff\xfe"),
        "null.zip": plain.replace(b"name.png", b"a\0/../.b"),
        "long-name.zip": zip_of(("n" * 60_000, b"x")),
        "deep.zip": zip_of(("a/" * 2000 + "x", b"x")),
        "deeper.zip": zip_of(("a/" * 30_000, b"")),
        "bzip2.zip": zip_of(("a", bytes(1000)), method=zipfile.ZIP_BZIP2),
        "lzma.zip": zip_of(("a", bytes(1000)), method=zipfile.ZIP_LZMA),
        **{f"method-{method}.zip": patched(plain, 10, struct.pack("<H", method)) for method in (1, 9, 93, 99, 65535)},
    }


def damaged(data, seed):
    """`data` with a few seeded faults; half of the damaged PNGs get checksums that fit, or few faults pass the first check."""
    chance = random.Random(seed)
    if data.startswith(SIGNATURE) and chance.random() < 0.5:
        chunks = list(png_chunks(data))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(chunks))
            kind, content = chunks[place]
            fault = chance.randrange(5)
            if fault == 0:
                chunks.insert(chance.randrange(len(chunks)), chunks[place])
            elif fault == 1 and len(chunks) > 1:
                del chunks[place]
            elif fault == 2 and kind == b"IDAT":
                chunks[place] = kind, zlib.compress(_flipped(bytes(chance.randrange(2000)), chance))
            else:
                chunks[place] = kind, _flipped(content, chance)
        return SIGNATURE + b"".join(chunk(kind, content) for kind, content in chunks)
    fault = chance.randrange(5)
    if fault == 0:
        return data[: chance.randrange(len(data))]
    if fault == 1:  # bytes moved from elsewhere
        start, end, length = (chance.randrange(len(data)) for _ in range(3))
        return data[:end] + data[start : start + length] + data[end + chance.choice((0, length)) :]
    if fault == 2:  # noise behind the first bytes
        return data[: chance.choice((4, 8, 16, 33))] + chance.randbytes(chance.randrange(300))
    return _flipped(data, chance)


def _flipped(data, chance):
    """A few bytes changed, more often near the start, where the header is."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6) if data else 0):
        place = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 160))
        changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, changed[place] ^ (1 << chance.randrange(8))))
    return bytes(changed)
