"""Picture and mask of a cleaned slide, as every later stage reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from doctogres.cleaning.slime import remove_splat
from doctogres.slides.masks import read_with_mask
from doctogres.slides.table import REPAIRED


def read_slide(root: Path, row: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Picture and mask of a row of the cohort table; for a repaired slide, the mask without the splat."""
    rgb, mask = read_with_mask(root / row.image, root / row.mask, name=row.image, mask_name=row.mask)
    return rgb, remove_splat(mask, rgb) if row.outcome == REPAIRED else mask
