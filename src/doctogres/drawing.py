"""Contact sheets of patches and overlays of a slide's regions, drawn without matplotlib state."""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from doctogres.errors import ParameterError
from doctogres.fonts import best_font

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

# Okabe and Ito, Color Universal Design (2008), ordered so that the first ones stand out on pink and purple tissue.
OKABE_ITO: Final[tuple[Colour, ...]] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (0, 0, 0),
)
OVERLAY_SIDE: Final = 1600
GAP: Final = 6


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """Returns an RGB colour per class in class order, colour-blind safe for up to eight classes.

    Further classes get evenly spread hues: all different, though no palette of that size is safe for everyone.
    """
    names = list(dict.fromkeys(classes))
    return {name: OKABE_ITO[index] if index < len(OKABE_ITO) else _scattered(index) for index, name in enumerate(names)}


def contact_sheet(tiles: Sequence[Pixels], captions: Sequence[str], *, columns: int = 12, tile: int = 96) -> Pixels:
    """Returns an RGB grid of the tiles, each with its caption beneath.

    A line that is wider than its tile loses its middle: names of slides and classes differ at their beginning or end.

    Args:
        tiles: RGB pictures (h, w, 3) of any size; each is fitted into a square, keeping its aspect ratio.
        captions: one per tile, of one line or several.
        columns: tiles per row; fewer tiles make a narrower sheet.
        tile: side of the squares in pixels.

    Raises:
        ParameterError: tiles and captions differ in number, or columns or tile are too small.
    """
    if len(tiles) != len(captions):
        raise ParameterError(f"every tile needs one caption: got {len(tiles)} tiles, {len(captions)} captions")
    if columns < 1 or tile < 8:
        raise ParameterError(f"columns must be at least 1 and tile at least 8 pixels, got {columns} and {tile}")
    size = max(9, round(tile / 8.5))
    fonts = [_font(best_font(caption), size) for caption in captions]
    line = max((sum(font.getmetrics()) for font in fonts), default=size)
    across = max(1, min(columns, len(tiles)))
    down = max(1, -(-len(tiles) // across))
    lines = [caption.split("\n") for caption in captions]
    pitch_x, pitch_y = tile + GAP, tile + line * max(map(len, lines), default=1) + GAP + 2
    sheet = Image.new("RGB", (across * pitch_x + GAP, down * pitch_y + GAP), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for index, (pixels, caption, font) in enumerate(zip(tiles, lines, fonts, strict=True)):
        x, y = GAP + index % across * pitch_x, GAP + index // across * pitch_y
        draw.rectangle((x, y, x + tile - 1, y + tile - 1), fill=(236, 236, 236))
        picture = fitted(pixels, tile)
        height, width = picture.shape[:2]
        sheet.paste(Image.fromarray(picture), (x + (tile - width) // 2, y + (tile - height) // 2))
        for number, words in enumerate(caption):
            text = elide_middle(words, font, tile)
            left = x + (tile - font.getlength(text)) / 2
            draw.text((left, y + tile + 1 + number * line), text, font=font, fill=(40, 40, 40))
    return np.asarray(sheet)


def overlay(
    rgb: Pixels,
    boxes: NDArray[np.int64],
    labels: Sequence[str],
    colours: Sequence[Colour],
    mask: NDArray[np.bool_] | None,
    size: tuple[int, int] | None = None,
) -> Pixels:
    """Returns the slide with the lesions outlined and the boxes drawn and labelled, at most 1600 px on its long side.

    Args:
        rgb: (h, w, 3).
        boxes: (n, 4) x, y, width, height in the slide's pixels.
        labels: a short text per box; an empty one draws none.
        colours: an RGB per box.
        mask: (h, w) lesion mask, or None.
        size: width and height of the slide if `rgb` is a smaller copy of it; the mask may then have any size.

    Raises:
        ParameterError: the arguments do not match in number or size.
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    if not len(boxes) == len(labels) == len(colours):
        raise ParameterError(f"boxes, labels and colours differ in number: {len(boxes)}, {len(labels)}, {len(colours)}")
    if size is None and mask is not None and mask.shape != rgb.shape[:2]:
        raise ParameterError(f"mask and slide must have the same size: got {mask.shape} and {rgb.shape[:2]}")
    scale = min(1.0, OVERLAY_SIDE / max(size or rgb.shape[:2]))
    canvas = np.array(shrunk(rgb, OVERLAY_SIDE))
    size = (canvas.shape[1], canvas.shape[0])
    line = max(2, round(max(size) / 600))
    if mask is not None:
        _outline(canvas, mask, size, line // 2)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    corners = [(x * scale, y * scale, (x + w) * scale - 1, (y + h) * scale - 1) for x, y, w, h in boxes.tolist()]
    for (left, top, right, bottom), colour in zip(corners, colours, strict=True):
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line)
    height = int(np.clip(max(size) / 95, 9, 16))
    taken: list[tuple[float, float, float, float]] = []
    for corner, label, colour in zip(corners, labels, colours, strict=True):
        if label:
            font = _font(best_font(label), height)
            _label(draw, corner, elide(label, font, size[0] / 3), colour, font, size, taken)
    return np.asarray(picture)


def heat_colours(values: NDArray[np.floating[Any]]) -> Pixels:
    """Returns viridis (perceptually uniform, colour-blind safe) colours of values in 0..1, (h, w) -> (h, w, 3)."""
    steps = np.rint(values * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[..., ::-1], dtype=np.uint8)


def elide(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Returns the text on one line, cut with an ellipsis to fit the width in pixels."""
    line = " ".join(text.split())[:500]
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def elide_middle(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Returns the text on one line, an ellipsis in place of its middle if it does not fit the width in pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    kept = min(len(line), 500)
    while kept and font.getlength(_ends(line, kept)) > width:
        kept -= 1
    return _ends(line, kept)


def _ends(line: str, kept: int) -> str:
    return line[: kept - kept // 2] + "…" + line[len(line) - kept // 2 :]


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float, float, float],
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Draws the text on a plate above, below, beside or inside the box, wherever it covers other labels least."""
    left, top, right, bottom = corner
    width, height = font.getlength(text) + 6, sum(font.getmetrics()) + 2
    places = [(left, top - height), (left, bottom + 1), (right + 1, top), (left - width, top), (left, top)]
    plates = []
    for x, y in places:
        x, y = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        plates.append((x, y, x + width, y + height))
    plate = min(plates, key=lambda candidate: sum(_overlap_area(candidate, other) for other in taken))
    taken.append(plate)
    draw.rectangle(plate, fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw.text((plate[0] + 3, plate[1] + 1), text, font=font, fill=(0, 0, 0) if luminance > 125 else (255, 255, 255))


def _overlap_area(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outline(canvas: Pixels, mask: NDArray[np.bool_], size: tuple[int, int], line: int) -> None:
    """Draws the mask's borders in white on a dark edge, visible on pale glass and on dark tissue alike."""
    cover = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
    # A quarter of a pixel is enough, so that thin lesions survive the downscaling.
    contours, _ = cv2.findContours((cover >= 64).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, (20, 20, 20), line + 2)
    cv2.drawContours(canvas, contours, -1, (255, 255, 255), line)


def shrunk(pixels: Pixels, side: int) -> Pixels:
    """Returns the picture, (h, w, 3), its longer side at most `side` pixels; a smaller one unchanged."""
    return fitted(pixels, side) if max(pixels.shape[:2]) > side else pixels


def fitted(pixels: Pixels, side: int) -> Pixels:
    """Returns the picture, (h, w, 3), its longer side exactly `side` pixels and its aspect ratio kept."""
    scale = side / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8)


def _scattered(index: int) -> Colour:
    """Returns a colour by golden-ratio steps around the hue circle, cycling through three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.6180339887 % 1.0, 0.75, (0.95, 0.7, 0.45)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
