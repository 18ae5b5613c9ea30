"""The example slides as HTML without scripts."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from doctogres.drawing import Colour, Pixels, class_colours, heat_colours, shrunk
from doctogres.pages import part
from doctogres.patches.regions import REGION_FIELDS
from doctogres.report.examples import PATCHES, GallerySection, ShownPatch, ShownSlide
from doctogres.slides.images import data_address, encode_jpeg

CLASSES: Final = 6  # maximum number of bars; the true and the predicted class are always among them
FILL: Final = 0.6  # opacity of a box whose probability is 1
# (long side of the slide, side of a patch, JPEG quality): the first that fits is used.
SIZES: Final = ((1400, 160, 82), (1100, 144, 70), (900, 128, 60), (700, 96, 50))

LEGEND, SECTION, SLIDE = (part(__package__, "gallery.html", macro) for macro in ("legend", "section", "slide"))


def gallery_html(sections: Sequence[GallerySection], classes: Sequence[str], budget: int) -> Markup:
    """Returns the gallery, at most `budget` bytes long; empty if there are no slides to show.

    Images are shrunk and compressed until they fit; if that is not enough, the last slides are left out, and the text
    says so.
    """
    if not any(section.slides for section in sections):
        return Markup()
    colours = class_colours(classes)
    legend = _legend(colours, [slide for section in sections for slide in section.slides])
    most = max(len(section.slides) for section in sections)
    for size in SIZES:
        drawn = [[_slide(slide, colours, size) for slide in section.slides] for section in sections]
        for kept in range(most, -1, -1) if size == SIZES[-1] else (most,):
            filled = [
                SECTION(heading=section.heading, lead=section.lead, slides=slides, kept=kept)
                for section, slides in zip(sections, drawn, strict=True)
            ]
            gallery = Markup().join([legend, *filled])
            if len(gallery.encode()) <= budget:
                return gallery
    return gallery


def _legend(colours: dict[str, Colour], shown: Sequence[ShownSlide]) -> Markup:
    ramps = [(name, _rgb(colour), _rgb(colour, 0.0), _rgb(colour, FILL)) for name, colour in colours.items()]
    maps = [patch.heat for slide in shown for patch in slide.patches if patch.heat is not None]
    heat = None
    if maps:
        scale = heated(np.full((16, 96, 3), 190, np.uint8), np.arange(96, dtype=np.float32)[None] / np.float32(95))
        heat = {"scale": jpeg_address(scale, 96, 90), "rows": maps[0].shape[0], "columns": maps[0].shape[1]}
    return LEGEND(ramps=ramps, most=PATCHES, heat=heat)


def _slide(slide: ShownSlide, colours: dict[str, Colour], size: tuple[int, int, int]) -> Markup:
    side, patch_side, quality = size
    return SLIDE(
        slide=slide,
        answer=slide.answer,
        bars=_bars(slide, colours),
        picture=jpeg_address(slide.picture, side, quality),
        boxes=list(_boxes(slide, colours)),
        patches=[_patch(patch, patch_side, quality, colours) for patch in slide.patches],
    )


def _bars(slide: ShownSlide, colours: dict[str, Colour]) -> list[tuple[str, float, str]]:
    """The slide's probability for every class; if there are many classes, the highest ones and the true class."""
    shares = dict(zip(colours, slide.answer.probabilities.tolist(), strict=True))
    order = sorted(shares, key=lambda name: -shares[name])
    shown = [name for place, name in enumerate(order) if place < CLASSES - 1 or name == slide.truth]
    return [(name, shares[name], _rgb(colours[name])) for name in shown]


def _boxes(slide: ShownSlide, colours: dict[str, Colour]) -> Iterator[dict[str, Any]]:
    letters = max(slide.size[0] / 75, 8)  # in slide pixels: readable if the image fills the page
    numbers = {patch.row: number for number, patch in enumerate(slide.patches, 1)}
    table = slide.answer.patches
    shares = slide.answer.patch_probabilities.max(axis=1).tolist()
    regions = zip(table[list(REGION_FIELDS)].to_numpy().tolist(), table["label"], shares, strict=True)
    for row, (region, label, share) in enumerate(regions):
        box: dict[str, Any] = dict(zip(REGION_FIELDS, region, strict=True))
        above, below = box["y"] - letters * 0.25, box["y"] + box["height"] + letters * 0.9
        yield box | {
            "label": label,
            "share": share,
            "opacity": FILL * share,
            "colour": _rgb(colours[label]),
            "number": numbers.get(row),
            "letters": letters,
            "text_y": above if box["y"] > letters * 1.2 else below,
        }


def _patch(patch: ShownPatch, side: int, quality: int, colours: dict[str, Colour]) -> dict[str, Any]:
    return {
        "label": patch.label,
        "share": patch.probability,
        "colour": _rgb(colours[patch.label]),
        "pixels": jpeg_address(patch.pixels, side, quality),
        "heat": None if patch.heat is None else jpeg_address(heated(patch.pixels, patch.heat), side, quality),
    }


def heated(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Returns the patch in greyscale, overlaid with its heat map, (size, size, 3).

    Args:
        pixels: (size, size, 3).
        heat: (rows, columns) in 0..1.
    """
    upscaled = np.asarray(cv2.resize(heat, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(grey, 0.5, heat_colours(upscaled), 0.5, 0), dtype=np.uint8)


def jpeg_address(pixels: Pixels, side: int, quality: int) -> str:
    """Returns the image, at most `side` pixels long, as a `data:` URL."""
    return data_address(encode_jpeg(shrunk(pixels, side), quality), "jpeg")


def _rgb(colour: Sequence[int], opacity: float = 1.0) -> str:
    red, green, blue = colour
    return f"rgb({red} {green} {blue} / {opacity:g})"
