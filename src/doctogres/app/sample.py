"""A slide to try the page with: synthetic, so that it is no patient's."""

from functools import cache

import numpy as np

from doctogres.app.uploads import Pair, Upload
from doctogres.slides.images import encode_png
from doctogres.synthetic.plan import LABELS
from doctogres.synthetic.slide import draw_slide

SEED = 7


@cache
def sample() -> Pair:
    """The sample slide with its mask; always the same."""
    slide = draw_slide(np.random.default_rng(SEED), LABELS[0])
    files = {"sample.png": slide.picture, "sample_mask.png": slide.mask}
    picture, mask = (Upload(name, encode_png(pixels), name) for name, pixels in files.items())
    return Pair("sample", picture, mask)
