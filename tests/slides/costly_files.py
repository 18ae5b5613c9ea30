"""Files of less than a megabyte that announce as many pixels as they like: every format, colour type and layout."""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, reduce

from tests.slides.hostile_files import SIGNATURE, Tags, chunk, strip_tags, tiff

Maker = Callable[[int, int], bytes]  # of a width and a height

PNG_TYPES = {
    **{f"grey-{bits}": (bits, 0, bits) for bits in (1, 2, 4, 8, 16)},
    **{f"palette-{bits}": (bits, 3, bits) for bits in (1, 2, 4, 8)},
    "rgb-8": (8, 2, 24),
    "rgb-16": (16, 2, 48),
    "grey-alpha-8": (8, 4, 16),
    "grey-alpha-16": (16, 4, 32),
    "rgba-8": (8, 6, 32),
    "rgba-16": (16, 6, 64),
}  # name: bits of a value, colour type, bits of a pixel
TIFF_TYPES: dict[str, tuple[int, list[int], Tags]] = {
    "bits": (1, [1], {}),
    "white-zero": (0, [8], {}),
    "grey": (1, [8], {}),
    "grey-alpha": (1, [8, 8], {338: (3, [2])}),
    "palette": (3, [8], {320: (3, [0] * 768)}),
    "rgb": (2, [8] * 3, {}),
    "rgba": (2, [8] * 4, {338: (3, [2])}),
    "rgba-multiplied": (2, [8] * 4, {338: (3, [1])}),
    "rgbx": (2, [8] * 4, {338: (3, [0])}),
    "planes": (2, [8] * 3, {284: (3, [2])}),
    "cmyk": (5, [8] * 4, {}),
    "ycbcr": (6, [8] * 3, {530: (3, [1, 1])}),
    "lab": (8, [8] * 3, {}),
    "grey-16": (1, [16], {}),
    "rgb-16": (2, [16] * 3, {}),
    "rgba-16": (2, [16] * 4, {338: (3, [2])}),
    "cmyk-16": (5, [16] * 4, {}),
    "whole-32": (1, [32], {}),
    "signed-32": (1, [32], {339: (3, [2])}),
    "float-32": (1, [32], {339: (3, [3])}),
}  # name: photometric, bits, further tags


@cache
def zeros(length: int, repeated: bytes = bytes(4096)) -> bytes:
    """So many bytes, deflated: a block of them is packed once, and stands there as often as it is needed."""
    block = repeated * 256
    count, rest = divmod(length, len(block))
    middle, end = zlib.compressobj(9, wbits=-15), zlib.compressobj(9, wbits=-15)
    packed = middle.compress(block) + middle.flush(zlib.Z_FULL_FLUSH)
    last = end.compress(block[:rest]) + end.flush()
    checksum = zlib.adler32(block[:rest], reduce(lambda value, _: zlib.adler32(block, value), range(count), 1))
    return b"\x78\xda" + packed * count + last + struct.pack(">I", checksum)


def costly_png(kind: str, *, interlace: int = 0, before: bytes = b"", repeated: bytes = bytes(4096)) -> Maker:
    bits, colour, pixel_bits = PNG_TYPES[kind]

    def make(width: int, height: int) -> bytes:
        rows = zeros((width * pixel_bits // 8 + 1) * height, repeated)
        header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
        palette = chunk(b"PLTE", bytes(3 * 2**bits)) if colour == 3 else b""
        frame = before.replace(b"WIDTHHEI", struct.pack(">II", width, height))
        return SIGNATURE + chunk(b"IHDR", header) + palette + frame + chunk(b"IDAT", rows) + chunk(b"IEND")

    return make


def costly_jpeg(components: int, *, sampling: int = 0x11, progressive: bool = False, scans: int = 0) -> Maker:
    """One-bit codes of "no change" and "end of block": two bits for a block of 8 x 8 pixels, all of them zero."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    def make(width: int, height: int) -> bytes:
        parts = b"".join(bytes([n + 1, sampling if n == 0 else 0x11, 0]) for n in range(components))
        frame = segment(0xC2 if progressive else 0xC0, struct.pack(">BHHB", 8, height, width, components) + parts)
        tables = segment(0xDB, b"\0" + b"\x10" * 64)
        dc, ac = b"\x01" + bytes(15) + b"\0", b"\x01" + bytes(15) + (b"\xe0" if progressive else b"\0")
        tables += segment(0xC4, b"\0" + dc) + segment(0xC4, b"\x10" + ac)
        chosen = b"".join(bytes([n + 1, 0]) for n in range(components))
        blocks = -(-width // 8) * -(-height // 8)
        last = b"\0\0\0" if progressive else b"\0\x3f\0"
        pixels = bytes(min(blocks * components // (8 if progressive else 4) + 8, 950_000))
        data = segment(0xDA, bytes([components]) + chosen + last) + pixels
        for _ in range(scans):  # of a run over 32,767 blocks each: a bit and 14 more
            data += segment(0xDA, b"\x01\x01\0\x01\x3f\0") + bytes(2 * (blocks // 16384 + 2))
        return b"\xff\xd8" + tables + frame + data + b"\xff\xd9"

    return make


def costly_tiff(
    kind: str, *, rows: int | None = None, tile: int = 0, scheme: int = 8, wide: int = 1, kind_of_size: int = 4
) -> Maker:
    """Strips or tiles that are all the same bytes of the file, deflated or as they are.

    Args:
        kind: in TIFF_TYPES.
        rows: of a strip; None for one strip.
        tile: the side of a tile, instead of strips.
        scheme: 8 for deflate, 1 for none, 5 for LZW.
        wide: how often wider than high a tile is.
        kind_of_size: the type of the numbers that state a tile's size.
    """
    photometric, bits, more = TIFF_TYPES[kind]
    planes = len(bits) if more.get(284) else 1

    def make(width: int, height: int) -> bytes:
        high = min(rows or height, height)
        across, down = (tile * wide, tile) if tile else (width, high)
        count = -(-width // across) * -(-height // down) * planes
        size = -(-across * sum(bits) // 8 // planes) * down
        content = zeros(size) if scheme == 8 else bytes(min(size, 900_000))
        kinds = (324, 325) if tile else (273, 279)
        tags = strip_tags(width, height) | {
            258: (3, bits),
            259: (3, [scheme]),
            262: (3, [photometric]),
            277: (3, [len(bits)]),
            278: (4, [high]),
            **more,
        }
        if tile:
            tags = {tag: value for tag, value in tags.items() if tag not in (273, 278, 279)}
            tags |= {322: (kind_of_size, [across]), 323: (kind_of_size, [down])}
        tags |= {kinds[0]: (4, ["here"] * count), kinds[1]: (4, [len(content)] * count)}
        return tiff(tags, content)

    return make


def costly_makers() -> Iterator[tuple[str, Maker]]:
    animated = chunk(b"acTL", struct.pack(">II", 1, 0))
    yield from ((f"{kind}.png", costly_png(kind)) for kind in PNG_TYPES)
    yield from ((f"{kind}-odd.png", costly_png(kind, repeated=bytes(range(0, 250)))) for kind in PNG_TYPES)
    yield from ((f"{kind}-interlaced.png", costly_png(kind, interlace=1)) for kind in ("grey-8", "rgb-8", "rgba-8"))
    yield "rgb-clear.png", costly_png("rgb-8", before=chunk(b"tRNS", bytes(6)))
    yield "grey-clear.png", costly_png("grey-8", before=chunk(b"tRNS", bytes(2)))
    yield "palette-clear.png", costly_png("palette-8", before=chunk(b"tRNS", bytes(200)))
    yield "animated.png", costly_png("rgba-8", before=animated)
    for name, components in (("grey", 1), ("rgb", 3), ("cmyk", 4)):
        yield f"{name}.jpg", costly_jpeg(components)
        yield f"{name}-progressive.jpg", costly_jpeg(components, progressive=True)
    yield "subsampled.jpg", costly_jpeg(3, sampling=0x22)
    yield "oversampled.jpg", costly_jpeg(3, sampling=0x44)
    yield "subsampled-progressive.jpg", costly_jpeg(3, sampling=0x22, progressive=True)
    yield "scans.jpg", costly_jpeg(1, progressive=True, scans=300)
    for kind in TIFF_TYPES:
        yield f"{kind}-strip.tif", costly_tiff(kind)
        yield f"{kind}-rows.tif", costly_tiff(kind, rows=16)
        yield f"{kind}-tile.tif", costly_tiff(kind, tile=256)
    for kind in ("grey", "rgb", "rgb-16"):
        yield f"{kind}-rows-raw.tif", costly_tiff(kind, rows=1, scheme=1)
        yield f"{kind}-tiny-tile-raw.tif", costly_tiff(kind, tile=16, scheme=1)
        yield f"{kind}-tiny-tile.tif", costly_tiff(kind, tile=16)
        yield f"{kind}-large-tile.tif", costly_tiff(kind, tile=16_384)
        yield f"{kind}-wide-tile.tif", costly_tiff(kind, tile=16, wide=8192)


def tags_of_one_place(entries: int = 40_000, length: int = 400_000) -> bytes:
    """TIFF tags that all have the same bytes of the file as their values."""
    here = 8 + 2 + 12 * entries + 4
    tags = b"".join(struct.pack("<HHII", 1000 + n, 1, length, here) for n in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + tags + bytes(4) + bytes(length)


def small_but_costly() -> dict[str, bytes]:
    """{name: file}: pictures of a few pixels, whose other parts are what costs."""
    picture = costly_png("rgb-8")(16, 16)
    jpeg = costly_jpeg(1)(16, 16)
    tags = tags_of_one_place()
    segments = b"".join(
        struct.pack(">BBH", 0xFF, 0xE1, len(part) + 8) + b"Exif\0\0" + part
        for part in (tags[start : start + 65_000] for start in range(0, len(tags), 65_000))
    )
    text = chunk(b"zTXt", b"a\0\0" + zeros(7_900_000))
    start, end = picture.index(b"IDAT") - 4, picture.index(b"IEND") - 4
    grey = tiff(strip_tags(), bytes(256))
    lying = bytearray(tags_of_one_place())
    own = grey[10 : 10 + 12 * 9]
    lying[10 : 10 + len(own)] = own
    return {
        "exif.jpg": b"\xff\xd8" + segments + jpeg[2:],
        "exif.png": picture[:start] + chunk(b"eXIf", tags) + picture[start:],
        "tags.tif": bytes(lying),
        "text-before.png": picture[:start] + text * 100 + picture[start:],
        "text-behind.png": picture[:end] + text * 100 + picture[end:],
        "frames.png": picture[:start] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + picture[start:],
    }
