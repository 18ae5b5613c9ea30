"""How the pixels of a mask, of its slide and of a model relate: a mask may be smaller than its slide."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import DoctogresError
from doctogres.slides.source import SlideSource

Size = tuple[int, int]  # width and height in pixels
Boxes = NDArray[np.int64]


def factor(slide: Size, mask: Size, most: float) -> float | None:
    """How many pixels of the slide a pixel of the mask is wide; None where it is not the mask of this slide.

    A whole number where the sizes allow it, whichever way the program that exported the mask rounded them.

    Args:
        slide: its size.
        mask: its size, of the same ratio up to that rounding.
        most: how many times a mask may be reduced.
    """
    longer = int(slide[1] > slide[0])
    ratio = slide[longer] / mask[longer]
    if not 1 <= ratio < most + 1:
        return None
    for candidate in (round(ratio), ratio):
        if all(abs(of_mask - of_slide / candidate) < 1 for of_slide, of_mask in zip(slide, mask, strict=True)):
            return candidate
    return None


def unit_of(slide: SlideSource, target_mpp: float) -> float:
    """The slide's pixels per pixel of `target_mpp` microns; 1 where one of the two is not known (0, None)."""
    return target_mpp / slide.mpp if target_mpp and slide.mpp else 1.0


@dataclass(frozen=True)
class Scale:
    """The scales of a slide.

    Attributes:
        size: of the slide.
        factor: its pixels per pixel of the mask.
        unit: its pixels per pixel at the model's resolution.
    """

    size: Size
    factor: float = 1.0
    unit: float = 1.0

    @classmethod
    def of(cls, slide: SlideSource, mask: NDArray[np.bool_], target_mpp: float = 0.0) -> Self:
        """The scales of a slide and its mask, (rows, columns), for a model of so many microns per pixel.

        Raises:
            DoctogresError: it is not the mask of this slide.
        """
        size, (rows, columns) = slide.size, mask.shape
        found = factor(size, (columns, rows), slide.mask_reduction) if mask.size else None
        if found is None:
            sizes = f"the mask has {columns}×{rows} pixels, the picture {size[0]}×{size[1]}"
            raise DoctogresError(f"{sizes}; give the mask of this picture")
        return cls(size, found, unit_of(slide, target_mpp))

    @property
    def is_one(self) -> bool:
        """Whether a pixel of the mask is one of the slide and one of the model."""
        return self.factor == self.unit == 1

    @property
    def reduction(self) -> float:
        """The model's pixels per pixel of the mask, on a side."""
        return self.factor / self.unit

    def boxes(self, of_mask: Boxes) -> Boxes:
        """Boxes in the mask's pixels, (boxes, 5) as in `regions.mask_regions`, in the slide's pixels."""
        if self.factor == 1:
            return of_mask
        edges = np.hstack([of_mask[:, :2], of_mask[:, :2] + of_mask[:, 2:4]]) * self.factor
        left, top, right, bottom = np.rint(np.minimum(edges, self.size * 2)).T
        sides = np.maximum(right - left, 1), np.maximum(bottom - top, 1)
        return np.column_stack([left, top, *sides, self._areas(of_mask, self.factor)]).astype(np.int64)

    def squares(self, of_mask: Boxes, side: int, *, inside: bool) -> Boxes:
        """Squares in the mask's pixels, (squares, 5), as ones of another side, in the slide's pixels, around the same centres.

        With `inside`, they lie in the slide wherever they fit there.
        """
        if self.is_one:
            return of_mask
        corners = np.rint((of_mask[:, :2] + of_mask[:, 2:4] / 2) * self.factor - side / 2)
        if inside:
            room = np.array(self.size) - side
            corners = np.where(room < 0, room // 2, np.clip(corners, 0, np.maximum(room, 0)))
        sides = np.full((len(of_mask), 2), side)
        return np.column_stack([corners, sides, self._areas(of_mask, self.factor)]).astype(np.int64)

    def at_model(self, of_mask: Boxes) -> Boxes:
        """Boxes in the mask's pixels with their areas in the model's."""
        return np.column_stack([of_mask[:, :4], self._areas(of_mask, self.reduction)])

    def _areas(self, boxes: Boxes, factor: float) -> Boxes:
        return boxes[:, 4] if factor == 1 else np.rint(boxes[:, 4] * factor**2).astype(np.int64)
