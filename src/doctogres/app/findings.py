"""An answer as HTML for the page. Names, sentences and numbers are escaped; pictures are inside it."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from doctogres.drawing import class_colours, shrunk
from doctogres.slides.images import data_address, encode_png

MOST_PATCHES: Final = 200  # that are shown of a slide
PATCH_SIDE: Final = 128  # pixels; a larger one is shown smaller


class Notice(NamedTuple):
    """What a reader must know before the answer."""

    kind: Literal["error", "warning", "note"]
    title: str
    text: str


def notices(answer: Mapping[str, Any]) -> list[Notice]:
    """What stands above an answer: that there is none, that the model is not sure, that there was no mask, its warnings."""
    warnings = "; ".join(answer["warnings"])
    if not answer["label"]:
        return [Notice("error", "No answer", warnings)]
    found = []
    if answer["abstained"]:
        share = percent(answer["confidence"])
        text = (
            f"{answer['label']} is the most probable subtype, but {share} is less than this model needs for an answer."
        )
        found.append(Notice("warning", "The model is not sure", text))
    if answer["mask_source"] == "tissue":
        found.append(Notice("warning", "All tissue was classified, not the lesions", warnings))
    elif warnings:
        found.append(Notice("note", "Note", warnings))
    return found


def notices_html(found: Iterable[Notice]) -> str:
    """Each notice in a frame of its own."""
    frames = "".join(
        f'<div class="notice {kind}" role="alert"><b>{escape(title)}</b>{escape(text)}</div>'
        for kind, title, text in found
    )
    return f"<div>{frames}</div>"


def subtype_html(answer: Mapping[str, Any]) -> str:
    """The subtype and a bar per class, the most probable first; the bars' colours are those of the overlay."""
    shares: dict[str, float] = answer["probabilities"]
    colours = class_colours(list(shares))
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="bar"><div><div style="width:{100 * share:.1f}%;'
        f'background:{_css(colours[name])}"></div></div></td><td>{percent(share)}</td></tr>'
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )
    headline, beneath = escape(answer["label"]), f"probability {percent(answer['confidence'])}"
    if answer["abstained"]:
        headline, beneath = "Not sure", f"most probable: {headline}, {percent(answer['confidence'])}"
    return (
        f'<section class="subtype{" unsure" if answer["abstained"] else ""}"><p>{escape(answer["slide_id"])}</p>'
        f"<h2>{headline}</h2><p>{beneath}</p><table>{rows}</table>"
        f"<p>Patches: {answer['n_patches']} classified, {answer['n_dropped']} left out. Model: "
        f"{escape(answer['model_version'])}</p></section>"
    )


def patches_html(answer: Mapping[str, Any], rgb: npt.NDArray[np.uint8]) -> str:
    """The classified patches, cut from the picture (height, width, 3): those that speak most for the subtype first."""
    label = answer["label"]
    patches = sorted(answer["patches"], key=lambda patch: -patch["probabilities"][label])
    colours = class_colours(list(answer["probabilities"]))
    figures = "".join(
        f'<figure style="border-color:{_css(colours[patch["label"]])}"><img src="{_crop(rgb, patch)}" '
        f'alt="patch at {patch["x"]}, {patch["y"]}"><figcaption>{escape(patch["label"])}<br>'
        f"{percent(patch['probabilities'][patch['label']])}</figcaption></figure>"
        for patch in patches[:MOST_PATCHES]
    )
    shown = f"{MOST_PATCHES} of {len(patches)}" if len(patches) > MOST_PATCHES else f"{len(patches)}"
    heading = f"Classified patches ({shown}), those that speak most for {escape(label)} first"
    return f'<section class="patches"><h3>{heading}</h3><div>{figures}</div></section>'


def percent(share: float) -> str:
    """A share in whole percent; nothing that is not certain is called 0 or 100."""
    if 0 < share < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= share < 1 else f"{share:.0%}".replace("%", " %")


def _crop(rgb: npt.NDArray[np.uint8], box: Mapping[str, Any]) -> str:
    """The box as the address of an `<img>`."""
    pixels = rgb[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]
    return data_address(encode_png(shrunk(pixels, PATCH_SIDE)), "png")


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*colour)
