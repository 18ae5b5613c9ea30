"""How many of a 16-bit file's bits are used: cameras keep values of 8, 10, 12 or 14 bits in 16, at either end.

Read as 16-bit values, those at the lower end are almost black; a dark picture, made brighter, is wrong as well. So the
number of bits is taken for certain only where

1. the file states it: BitsPerSample, MaxSampleValue or OME's SignificantBits in a TIFF, sBIT in a PNG whose values are
   not aligned to the upper end as that chunk demands; or
2. the highest value has the uppermost bit: all 16 are used; or
3. every value is a multiple of 256 or of 257, a byte stretched to 16 bits, however dark; or
4. the highest value is the brightest that 8, 10, 12 or 14 bits can hold, up to its last eighth bit (4080 to 4095 for 12): the
   white of a slide reaches the end of its scale, and nothing else ends there but by chance; or
5. every value is a byte times 1, 4 or 16 with its uppermost bit used: 8 bits kept in 8, 10 or 12. As 16-bit values they
   would be at most 6 % bright, which no picture of a slide is. (A byte times 64 could be a picture of a quarter of the
   brightness, and is not taken for 14 bits.)
"""

import re
import struct
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.slides.formats import PNG_SIGNATURE, Header, ImageError
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff import Page, Tag

CAMERA_BITS: Final = (8, 10, 12, 14)
BYTE_TIMES: Final = {8: 1, 10: 4, 12: 16}
SIGNIFICANT_BITS: Final = re.compile(r'\bSignificantBits="(\d{1,2})"')


class BitDepthError(ImageError):
    """Nobody can say how many of the 16 bits are used, so that the picture has no certain brightness."""

    code: ClassVar[str] = Reason.BIT_DEPTH


def bits_used(values: NDArray[np.integer[Any]], data: bytes, header: Header, name: str) -> int:
    """The bits that a picture's values use, 8 to 16: its full scale is 2**bits - 1.

    Args:
        values: the 16-bit colours, without alpha.
        data: the file.
        header: its header.
        name: of the file, for the error.

    Raises:
        BitDepthError: no rule of this module applies.
    """
    highest = int(values.max())
    stated = _stated_in_tiff(header.page) if header.page else _stated_in_png(data, values)
    if 8 <= stated < 16 and highest < 2**stated:
        return stated
    if highest >= 2**15 or not (values & 255).any() or not (values % 257).any():
        return 16
    for bits in CAMERA_BITS:
        if highest >> (bits - 8) == 255:
            return bits
    for bits, times in BYTE_TIMES.items():
        if 128 <= highest / times <= 255 and not (values % times).any():
            return bits
    tag = ", or state the full scale in the tag MaxSampleValue (4095 for 12 bits)" if header.page else ""
    raise BitDepthError(
        f"{name} holds 16-bit values, of which the highest is {highest} of 65535: a very dark picture, or one of fewer "
        f"bits; save it as 8-bit RGB with its glass as bright as it should be{tag}"
    )


def _stated_in_tiff(page: Page) -> int:
    if page.bits < 16:
        return page.bits
    if found := SIGNIFICANT_BITS.search(page.description):
        return int(found[1])
    most = page.number(Tag.MAX_VALUE) or page.number(Tag.S_MAX_VALUE)
    return most.bit_length() if most & (most + 1) == 0 else 0


def _stated_in_png(data: bytes, values: NDArray[np.integer[Any]]) -> int:
    """The number in sBIT, unless the values are aligned to the upper end of the 16 bits, as the specification demands."""
    position = len(PNG_SIGNATURE)
    while position + 9 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"sBIT":
            stated = data[position + 8]
            return stated if stated < 16 and (values & (2 ** (16 - stated) - 1)).any() else 0
        if kind in (b"IDAT", b"PLTE"):
            break
        position += 12 + length
    return 0
