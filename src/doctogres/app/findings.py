"""Renders an answer as HTML for the page. All text is escaped; images are embedded."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from markupsafe import Markup

from doctogres.drawing import class_colours, shrunk
from doctogres.pages import part
from doctogres.slides.images import data_address, encode_png
from doctogres.slides.reasons import parsed
from doctogres.slides.source import Picture, Rectangle, SlideSource, source_of

MOST_PATCHES: Final = 200  # shown per slide
PATCH_SIDE: Final = 128  # pixels; larger patches are shrunk

NOTICES, SUBTYPE, PATCHES = (part(__package__, "findings.html", macro) for macro in ("notices", "subtype", "patches"))
OVERLAY: Final = "the slide {slide} with {marks}the classified patches as boxes in the colours of their subtypes"


class Notice(NamedTuple):
    """What the user must know before reading the answer."""

    kind: Literal["error", "warning", "note"]
    title: str
    text: str


def notices(answer: Mapping[str, Any]) -> list[Notice]:
    """The notices above an answer: no answer, model not sure, no mask, other warnings."""
    if not answer["label"]:
        return [Notice("error", "No answer", "; ".join(answer["warnings"]))]
    warnings = "; ".join(text for text in answer["warnings"] if text not in answer["reasons"])
    result = []
    if answer["abstained"]:
        why = "; ".join(parsed(reason)[1] for reason in answer["reasons"])
        text = f"{answer['label']} is the most probable subtype, but {why}"
        result.append(Notice("warning", "The model is not sure", text))
    if answer["mask_source"] == "tissue":
        result.append(Notice("warning", "No lesion mask: tiles of the tissue were classified", warnings))
    elif warnings:
        result.append(Notice("note", "Note", warnings))
    return result


def notices_html(shown: Iterable[Notice]) -> Markup:
    """Renders each notice in its own box."""
    return NOTICES(notices=list(shown))


def subtype_html(answer: Mapping[str, Any], *, slide: str, mask: str) -> Markup:
    """Renders the subtype and a bar per class, the most probable first, in the colours of the overlay.

    Args:
        answer: of the server.
        slide: the name of its file.
        mask: the same; empty without a mask.
    """
    shares: dict[str, float] = answer["probabilities"]
    colours = class_colours(list(shares))
    bars = [
        (name, f"{100 * share:.1f}", _css(colours[name]), percent(share))
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return SUBTYPE(answer=answer, slide=slide, mask=mask, confidence=percent(answer["confidence"]), bars=bars)


def overlay_text(answer: Mapping[str, Any], slide: str) -> str:
    """What the overlay shows, for readers who do not see it."""
    return OVERLAY.format(
        slide=slide, marks="" if answer["mask_source"] == "tissue" else "the lesion mask outlined and "
    )


def patches_html(answer: Mapping[str, Any], slide: Picture) -> Markup:
    """Renders the classified patches, cut from the slide, highest probability of the subtype first."""
    source = source_of(slide)
    label = answer["label"]
    patches = sorted(answer["patches"], key=lambda patch: -patch["probabilities"][label])
    colours = class_colours(list(answer["probabilities"]))
    shown = [
        {
            "at": f"{patch['x']}, {patch['y']}",
            "label": patch["label"],
            "share": percent(patch["probabilities"][patch["label"]]),
            "colour": _css(colours[patch["label"]]),
            "pixels": _crop(source, patch),
        }
        for patch in patches[:MOST_PATCHES]
    ]
    return PATCHES(label=label, patches=shown, total=len(patches))


def percent(share: float) -> str:
    """A share in whole percent; 0 and 100 are shown only if exact."""
    if 0 < share < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= share < 1 else f"{share:.0%}".replace("%", " %")


def _crop(source: SlideSource, box: Mapping[str, Any]) -> str:
    """The box as a `data:` URL."""
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    scale = min(1, PATCH_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels, _ = source.read(Rectangle(x, y, x + width, y + height), size)
    return data_address(encode_png(shrunk(pixels, PATCH_SIDE)), "png")


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*colour)
