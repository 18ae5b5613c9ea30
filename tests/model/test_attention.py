"""The gated-attention head: it finds the patches that tell, and its answer knows neither order nor neighbours."""

import numpy as np
import torch

from doctogres.model.attention import GatedAttention
from doctogres.training.attention import train_attention


def bags(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Slides of 8 patches of which one, marked by feature 0, holds the class in the sign of feature 1; others lie."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count * 8, 6)).astype(np.float32)
    features[:, 0] = -2
    features[:, 1] = rng.choice([-3, 3], count * 8)
    targets = rng.integers(0, 2, count)
    telling = np.arange(count) * 8 + rng.integers(0, 8, count)
    features[telling, 0] = 2
    features[telling, 1] = np.where(targets, 3, -3)
    return torch.from_numpy(features), np.repeat(np.arange(count), 8), targets


def test_it_learns_to_look_at_the_patch_that_tells() -> None:
    head = train_attention(*bags(300, 0), classes=2, seed=0)
    features, slides, targets = bags(200, 1)
    answers = torch.stack([head.of_slide(features[slides == slide]) for slide in range(200)])
    mean_sign = (features[:, 1].reshape(200, 8).mean(1) > 0).numpy().astype(int)
    assert (answers.argmax(1).numpy() == targets).mean() > 0.9 > (mean_sign == targets).mean() + 0.1


def test_a_slide_s_answer_knows_neither_order_nor_neighbours() -> None:
    torch.manual_seed(0)
    head = GatedAttention(6, 3).eval()
    features, slides, _ = bags(4, 2)
    together = head(features, torch.from_numpy(slides)).double().softmax(1)
    alone = torch.stack([head.of_slide(features[slides == slide]) for slide in range(4)])
    torch.testing.assert_close(together.detach(), alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(head.of_slide(features[:8].flip(0)), alone[0], atol=1e-6, rtol=1e-5)
    assert torch.allclose(alone.sum(1), torch.ones(4, dtype=torch.float64))


def test_the_seed_decides_the_head_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (train_attention(*bags(20, 0), classes=2, seed=3) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_class_without_slides_is_never_learnt_and_breaks_nothing() -> None:
    features, slides, targets = bags(20, 0)
    head = train_attention(features, slides, targets, classes=3, seed=0)
    assert torch.isfinite(head.of_slide(features[:8])).all()
