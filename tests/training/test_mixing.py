"""MixUp, CutMix and the loss of mixed targets."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from doctogres.training.mixing import mix, weighted_cross_entropy

COUNT, CLASSES, SIZE = 7, 4, 16  # an odd number of patches
TARGETS = torch.tensor([0, 1, 2, 3, 0, 1, 2])
BOTH = {"mixup": 0.4, "cutmix": 1.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def levels():
    """Flat patches whose value names them: 0, 1, ... COUNT - 1."""
    return torch.arange(COUNT).float().view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE).contiguous()


def logits(seed=0):
    return torch.randn(COUNT, CLASSES, generator=seeded(seed))


def test_both_off_leaves_the_batch_and_the_generator():
    generator = seeded()
    before = generator.get_state()
    batch, soft = mix(levels(), TARGETS, CLASSES, mixup=0, cutmix=0, generator=generator)
    assert torch.equal(batch, levels())
    assert torch.equal(soft, F.one_hot(TARGETS, CLASSES).float())
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("alphas", [{"mixup": 0.4, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}, BOTH])
def test_the_generator_decides_and_nothing_else(alphas):
    given_batch = levels()
    first = mix(given_batch, TARGETS, CLASSES, **alphas, generator=seeded(3))
    torch.manual_seed(9)
    again = mix(levels(), TARGETS, CLASSES, **alphas, generator=seeded(3))
    other = mix(levels(), TARGETS, CLASSES, **alphas, generator=seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(given_batch, levels())


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.4, 1.0, 5.0]))
def test_mixup_blends_pixels_and_targets_by_the_same_share(seed, alpha):
    # Level n of a patch stands for class n, so a blend's level is the mean class of its soft target.
    everyone = torch.arange(COUNT)
    mixed, soft = mix(levels(), everyone, COUNT, mixup=alpha, cutmix=0, generator=seeded(seed))
    assert torch.allclose(mixed, mixed[:, :1, :1, :1].expand_as(mixed))
    assert torch.allclose(soft @ everyone.float(), mixed[:, 0, 0, 0], atol=1e-4)
    assert torch.allclose(soft.sum(1), torch.ones(COUNT), atol=1e-5)
    assert torch.allclose(soft.sum(0), torch.ones(COUNT), atol=1e-5)  # every patch is somebody's other


@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 5.0]))
def test_cutmix_puts_in_one_box_and_shares_by_its_area(seed, alpha):
    everyone = torch.arange(COUNT)
    mixed, soft = mix(levels(), everyone, COUNT, mixup=0, cutmix=alpha, generator=seeded(seed))
    foreign = (mixed != levels()).any(1)  # (patches, size, size)
    for own, patch in enumerate(mixed):
        where = foreign[own].nonzero()
        if len(where):
            (top, left), (bottom, right) = where.min(0).values, where.max(0).values
            assert len(where) == (bottom - top + 1) * (right - left + 1)
        shares = [(patch[0] == level).float().mean() for level in range(COUNT)]
        assert torch.allclose(soft[own], torch.stack(shares), atol=1e-6)


def test_with_both_on_each_happens_about_half_the_time():
    cut = 0
    for seed in range(200):
        mixed, _ = mix(levels(), TARGETS, CLASSES, **BOTH, generator=seeded(seed))
        cut += bool((mixed == mixed.round()).all())
    assert 60 < cut < 140


def test_a_single_patch_is_mixed_with_itself():
    batch, soft = mix(levels()[3:4], TARGETS[3:4], CLASSES, **BOTH, generator=seeded())
    assert torch.allclose(batch, levels()[3:4])
    assert torch.allclose(soft, F.one_hot(TARGETS[3:4], CLASSES).float())


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.7]))
def test_unmixed_it_is_the_weighted_mean_of_pytorch(seed, smoothing):
    weights = torch.rand(CLASSES, generator=seeded(seed)) * 3 + 0.1
    wanted = F.cross_entropy(logits(seed), TARGETS, weight=weights, label_smoothing=smoothing)
    _, soft = mix(levels(), TARGETS, CLASSES, mixup=0, cutmix=0, generator=seeded())
    for targets in (TARGETS, soft):
        losses, total = weighted_cross_entropy(logits(seed), targets, weights, smoothing)
        assert losses / total == pytest.approx(wanted.item(), abs=1e-6, rel=1e-6)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_loss_is_linear_in_the_mixture(seed, share):
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0])
    pure = F.one_hot(TARGETS, CLASSES).float()
    parts = [weighted_cross_entropy(logits(seed), soft, weights, 0.1) for soft in (pure, pure.flip(0))]
    mixed = weighted_cross_entropy(logits(seed), torch.lerp(pure.flip(0), pure, share), weights, 0.1)
    for value, one, two in zip(mixed, *parts, strict=True):
        assert value == pytest.approx(share * one.item() + (1 - share) * two.item(), abs=1e-4)


def test_parts_add_up_to_the_whole():
    weights = torch.tensor([0.5, 2.0, 1.0, 0.3])
    whole = weighted_cross_entropy(logits(), TARGETS, weights, 0.1)
    parts = [
        weighted_cross_entropy(logits()[rows], TARGETS[rows], weights, 0.1) for rows in (slice(0, 3), slice(3, None))
    ]
    for value, one, two in zip(whole, *parts, strict=True):
        assert value == pytest.approx((one + two).item(), abs=1e-5)
