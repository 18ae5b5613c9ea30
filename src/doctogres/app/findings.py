"""An answer as HTML for the page. Names, sentences and numbers are escaped; pictures are inside it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from doctogres.drawing import class_colours, shrunk
from doctogres.pages import part
from doctogres.slides.images import data_address, encode_png
from doctogres.slides.reasons import parsed

MOST_PATCHES: Final = 200  # that are shown of a slide
PATCH_SIDE: Final = 128  # pixels; a larger one is shown smaller

NOTICES, SUBTYPE, PATCHES = (part(__package__, "findings.html", macro) for macro in ("notices", "subtype", "patches"))


class Notice(NamedTuple):
    """What a reader must know before the answer."""

    kind: Literal["error", "warning", "note"]
    title: str
    text: str


def notices(answer: Mapping[str, Any]) -> list[Notice]:
    """What stands above an answer: that there is none, that the model is not sure, that there was no mask, its warnings."""
    if not answer["label"]:
        return [Notice("error", "No answer", "; ".join(answer["warnings"]))]
    warnings = "; ".join(text for text in answer["warnings"] if text not in answer["reasons"])
    found = []
    if answer["abstained"]:
        why = "; ".join(parsed(reason)[1] for reason in answer["reasons"])
        found.append(
            Notice("warning", "The model is not sure", f"Most probable subtype: {answer['label']}. Why: {why}")
        )
    if answer["mask_source"] == "tissue":
        found.append(Notice("warning", "All tissue was classified, not the lesions", warnings))
    elif warnings:
        found.append(Notice("note", "Note", warnings))
    return found


def notices_html(found: Iterable[Notice]) -> Markup:
    """Each notice in a frame of its own."""
    return NOTICES(notices=list(found))


def subtype_html(answer: Mapping[str, Any]) -> Markup:
    """The subtype and a bar per class, the most probable first; the bars' colours are those of the overlay."""
    shares: dict[str, float] = answer["probabilities"]
    colours = class_colours(list(shares))
    bars = [
        (name, f"{100 * share:.1f}", _css(colours[name]), percent(share))
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return SUBTYPE(answer=answer, confidence=percent(answer["confidence"]), bars=bars)


def patches_html(answer: Mapping[str, Any], rgb: npt.NDArray[np.uint8]) -> Markup:
    """The classified patches, cut from the picture (height, width, 3): those that speak most for the subtype first."""
    label = answer["label"]
    patches = sorted(answer["patches"], key=lambda patch: -patch["probabilities"][label])
    colours = class_colours(list(answer["probabilities"]))
    shown = [
        {
            "at": f"{patch['x']}, {patch['y']}",
            "label": patch["label"],
            "share": percent(patch["probabilities"][patch["label"]]),
            "colour": _css(colours[patch["label"]]),
            "pixels": _crop(rgb, patch),
        }
        for patch in patches[:MOST_PATCHES]
    ]
    return PATCHES(label=label, patches=shown, total=len(patches))


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
