"""The slides to look at as HTML without a script."""

from collections.abc import Sequence
from html import escape
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.drawing import Colour, Pixels, class_colours, heat_colours, shrunk
from doctogres.patches.regions import REGION_FIELDS
from doctogres.report.examples import PATCHES, GallerySection, ShownPatch, ShownSlide
from doctogres.slides.images import data_address, encode_jpeg

CLASSES: Final = 6  # whose bars are drawn; the truth and the answer are always among them
FILL: Final = 0.6  # opacity of a box whose probability is 1
# (long side of the slide, side of a patch, JPEG quality): the first that fits is taken.
SIZES: Final = ((1400, 160, 82), (1100, 144, 70), (900, 128, 60), (700, 96, 50))


def gallery_html(sections: Sequence[GallerySection], classes: Sequence[str], budget: int) -> str:
    """Returns the gallery, at most `budget` bytes long; empty if there is no slide to show.

    Pictures get smaller and coarser until they fit; where that is not enough, the last slides are left out, and the
    text says so.
    """
    if not any(section.slides for section in sections):
        return ""
    colours = class_colours(classes)
    switch = '<input type="checkbox" id="boxes" checked><label for="boxes"> show the region boxes</label>'
    head = [_legend(colours, [slide for section in sections for slide in section.slides]), switch]
    most = max(len(section.slides) for section in sections)
    for size in SIZES:
        drawn = [[_slide(slide, colours, size) for slide in section.slides] for section in sections]
        for kept in range(most, -1, -1) if size == SIZES[-1] else (most,):
            page = "\n".join(
                [
                    *head,
                    *(_section_html(section, slides, kept) for section, slides in zip(sections, drawn, strict=True)),
                ]
            )
            if len(page.encode()) <= budget:
                return page
    return page


def _section_html(section: GallerySection, slides: Sequence[str], kept: int) -> str:
    left_out = f" The first {kept} of {len(slides)} are shown, to keep this file small." if kept < len(slides) else ""
    return (
        f'<section class="wall"><h3>{escape(section.heading)}</h3><p>{escape(section.lead + left_out)}</p>'
        f"{''.join(slides[:kept])}</section>"
    )


def _legend(colours: dict[str, Colour], shown: Sequence[ShownSlide]) -> str:
    ramps = "".join(
        f'<li><span class="ramp" style="border-color:{_rgb(colour)};background:'
        f'linear-gradient(to right,{_rgb(colour, 0.0)},{_rgb(colour, FILL)}),#bebebc"></span> {escape(name)}</li>'
        for name, colour in colours.items()
    )
    maps = [patch.heat for slide in shown for patch in slide.patches]
    heat = next((one for one in maps if one is not None), None)
    if heat is None:
        heat_text = "Heat maps are not available for this network: it has no layer whose output is a map of places."
    else:
        scale = heated(np.full((16, 96, 3), 190, np.uint8), np.arange(96, dtype=np.float32)[None] / np.float32(95))
        heat_text = (
            f'<img class="ramp" alt="colours from 0 to 1" src="{jpeg_address(scale, 96, 90)}"> 0 to 1. Right of each patch, on '
            "the patch in grey: where it speaks for the class that it was given (Grad-CAM; the mean of the networks' maps, each "
            "on its own scale). 1 is where every network has its strongest place among the patches shown of the same slide, so "
            "colours compare within "
            "a slide and not between slides. The map has only "
            f"{heat.shape[0]}×{heat.shape[1]} places and is blurred over the patch: it says roughly where, not which cell. "
            "It shows what the networks used, not what is right."
        )
    return (
        '<div class="legend"><p>A box is a region that was classified. Its colour is the class that the region was given; it is '
        "filled from clear (probability 0) to strong (1), the same for every slide:</p>"
        f'<ul class="keys">{ramps}</ul>'
        "<p>A white line with a dark rim is the edge of the marked lesion; without a box the region was too small to count. "
        f"The numbered boxes are the patches under the slide: the {PATCHES} at most that the networks were surest of. The "
        "probabilities of regions are the networks' own; the slide's confidence is made of all its regions and then "
        f"calibrated, so it can differ from theirs.</p><p>{heat_text}</p></div>"
    )


def _slide(slide: ShownSlide, colours: dict[str, Colour], size: tuple[int, int, int]) -> str:
    side, patch_side, quality = size
    answer = slide.answer
    correctness = "correct" if slide.truth == answer.label else "wrong"
    sure = " · <strong>not sure</strong>" if answer.abstained else ""
    note = f'<p class="note">{escape(answer.note)}</p>' if answer.note else ""
    patches = "".join(
        _patch(number, patch, patch_side, quality, colours) for number, patch in enumerate(slide.patches, 1)
    )
    return (
        f'<article class="slide"><h4>{escape(slide.slide_id)}</h4><p>truth <strong>{escape(slide.truth)}</strong> · '
        f"predicted <strong>{escape(answer.label)}</strong> ({correctness}) · confidence {answer.confidence:.2f}{sure}</p>{note}"
        f'{_bars(slide, colours)}<div class="scroll">{_picture(slide, colours, side, quality)}</div>'
        f'<div class="patches">{patches}</div></article>'
    )


def _bars(slide: ShownSlide, colours: dict[str, Colour]) -> str:
    """The slide's probability of every class; of many classes, the highest and the truth."""
    shares = dict(zip(colours, slide.answer.probabilities.tolist(), strict=True))
    order = sorted(shares, key=lambda name: -shares[name])
    shown = [name for place, name in enumerate(order) if place < CLASSES - 1 or name == slide.truth]
    return '<ul class="bars">' + "".join(
        f'<li><span>{escape(name)}{" (truth)" if name == slide.truth else ""}</span><span class="bar"><i style="width:{shares[name]:.1%};'
        f'background:{_rgb(colours[name])}"></i></span><span>{shares[name]:.2f}</span></li>'
        for name in shown
    ) + "</ul>"  # fmt: skip


def _picture(slide: ShownSlide, colours: dict[str, Colour], side: int, quality: int) -> str:
    width, height = slide.size
    letters = max(width / 75, 8)  # in the slide's pixels: readable where the picture fills the page
    numbers = {patch.row: number for number, patch in enumerate(slide.patches, 1)}
    boxes = []
    table = slide.answer.patches
    shares = slide.answer.patch_probabilities.max(axis=1)
    regions = zip(table[list(REGION_FIELDS)].to_numpy().tolist(), table["label"], shares, strict=True)
    for row, ((x, y, across, down, area), label, share) in enumerate(regions):
        colour = _rgb(colours[label])
        tip = f"{label} {share:.2f}; {across}×{down} px at {x}, {y}; lesion {area} px"
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{across}" height="{down}" fill="{colour}" fill-opacity="{FILL * share:.2f}" '
            f'stroke="{colour}"><title>{escape(tip)}</title></rect>'
        )
        if row in numbers:
            at = y - letters * 0.25 if y > letters * 1.2 else y + down + letters * 0.9
            boxes.append(f'<text x="{x}" y="{at:.0f}" font-size="{letters:.0f}">{numbers[row]}</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(slide.slide_id)}: {len(slide.answer.patches)} regions">'
        f'<image width="{width}" height="{height}" preserveAspectRatio="none" href="{jpeg_address(slide.picture, side, quality)}"/>'
        f'<g class="boxes">{"".join(boxes)}</g></svg>'
    )


def _patch(number: int, patch: ShownPatch, side: int, quality: int, colours: dict[str, Colour]) -> str:
    text = f"{patch.label} {patch.probability:.2f}"
    pictures = [(f"patch {number}", patch.pixels)]
    if patch.heat is not None:
        pictures.append((f"heat map of patch {number} for {patch.label}", heated(patch.pixels, patch.heat)))
    images = "".join(
        f'<img alt="{escape(alt)}" src="{jpeg_address(pixels, side, quality)}">' for alt, pixels in pictures
    )
    return (
        f'<figure style="border-color:{_rgb(colours[patch.label])}"><div class="pair">{images}</div>'
        f"<figcaption><strong>{number}</strong> {escape(text)}</figcaption></figure>"
    )


def heated(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Returns the patch in grey under the colours of its heat map, (size, size, 3).

    Args:
        pixels: (size, size, 3).
        heat: (rows, columns) in 0..1.
    """
    places = np.asarray(cv2.resize(heat, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(grey, 0.5, heat_colours(places), 0.5, 0), dtype=np.uint8)


def jpeg_address(pixels: Pixels, side: int, quality: int) -> str:
    """Returns the picture, at most `side` pixels long, as a `data:` address."""
    return data_address(encode_jpeg(shrunk(pixels, side), quality), "jpeg")


def _rgb(colour: Sequence[int], opacity: float = 1.0) -> str:
    red, green, blue = colour
    return f"rgb({red} {green} {blue} / {opacity:g})"
