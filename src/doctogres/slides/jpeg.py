"""What kind of JPEG a file is, from its frame header."""

from typing import Final

FRAMES: Final = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
LOSSLESS: Final = (0xC3, 0xC7, 0xCB, 0xCF)
HIERARCHICAL: Final = (0xC5, 0xC6, 0xCD, 0xCE)
ALONE: Final = (0x01, *range(0xD0, 0xDA))  # markers without a length
SCAN: Final = 0xDA
MAX_MARKERS: Final = 10_000


def scans(data: bytes) -> int:
    """How many scans a JPEG has; each goes over all pixels. Within their data, 0xFF is always followed by zero."""
    return data.count(bytes((0xFF, SCAN)))


def unusual_jpeg(data: bytes) -> str:
    """The kind of a JPEG that the decoders lack ("a lossless JPEG"); empty for an ordinary one, and where none is found."""
    place = 2
    for _ in range(MAX_MARKERS):
        if place + 9 >= len(data) or data[place] != 0xFF:
            return ""
        marker = data[place + 1]
        if marker in FRAMES:
            return _kind(marker, bits=data[place + 4])
        if marker == SCAN:
            return ""
        if marker == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 if marker in ALONE else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return ""


def _kind(marker: int, bits: int) -> str:
    if marker in LOSSLESS:
        return "a lossless JPEG"
    if marker in HIERARCHICAL:
        return "a hierarchical JPEG"
    if marker >= 0xC9:
        return "an arithmetic-coded JPEG"
    return "a 12-bit JPEG" if bits == 12 else ""
