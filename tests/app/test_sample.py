"""The sample slide."""

from doctogres.app.sample import sample
from doctogres.slides.masks import read_with_mask


def test_the_sample_is_a_slide_with_lesions() -> None:
    pair = sample()
    assert pair.slide
    assert pair.mask
    slide, mask, note = read_with_mask(pair.slide.content, pair.mask.content, name="slide", mask_name="mask")
    assert slide.size == mask.shape[::-1]
    assert 0 < mask.mean() < 0.5
    assert not note
    assert sample() == pair
