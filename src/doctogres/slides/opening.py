"""Opens a slide of any format."""

from doctogres.slides.formats import Source, source_bytes, source_name
from doctogres.slides.images import read_rgb
from doctogres.slides.levels import is_read_in_regions
from doctogres.slides.pyramid import Pyramid
from doctogres.slides.resolution import stated_mpp
from doctogres.slides.source import DecodedPicture, SlideSource


def open_slide(source: Source, *, name: str = "") -> SlideSource:
    """A slide as the source of its pixels: a picture is decoded, a pyramid only opened.

    Raises:
        ImageError: it cannot be read; the message names it (`name`, or else the path).
    """
    name = source_name(source, name)
    if is_read_in_regions(source, name):
        return Pyramid.open(source, name)
    data = source_bytes(source, name)
    return DecodedPicture(read_rgb(data, name=name), stated_mpp(data))
