"""Picture and mask of a cleaned slide, as every later stage reads them."""

from pathlib import Path
from typing import Any

import pandas as pd

from doctogres.cleaning.slime import remove_splat
from doctogres.slides.masks import MarkedSlide, read_with_mask
from doctogres.slides.table import REPAIRED


def read_slide(root: Path, row: Any) -> MarkedSlide:
    """Picture and mask of a row of the cohort table; for a repaired slide, the mask without the splat."""
    slide = read_with_mask(
        *(root / row.image, root / row.mask), name=row.image, mask_name=row.mask, annotations=row.annotations
    )
    slide = slide._replace(picture=slide.picture.at(None if pd.isna(row.mpp) else row.mpp))
    return slide._replace(mask=remove_splat(slide.mask, slide.picture)) if row.outcome == REPAIRED else slide
