"""Augmentation of batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doctogres.training.augmentation import augment, colour_jitter, dihedral, small_affine, stain_jitter

CHANGES = (dihedral, small_affine, stain_jitter, colour_jitter, augment)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=16, size=12):
    return torch.rand(count, 3, size, size, generator=seeded(99))


def variants(patch):
    turns = [torch.rot90(patch, quarter, (1, 2)) for quarter in range(4)]
    return turns + [turn.flip(2) for turn in turns]


@pytest.mark.parametrize("change", CHANGES)
def test_shape_type_and_range_stay(change):
    batch = noise()
    batch[0], batch[1] = 0, 1  # the ends of the range
    changed = change(batch, seeded())
    assert changed.shape == batch.shape
    assert changed.dtype == batch.dtype
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-6


@pytest.mark.parametrize("change", CHANGES)
def test_the_batch_itself_is_left_alone(change):
    batch = noise()
    change(batch, seeded())
    assert torch.equal(batch, noise())


@pytest.mark.parametrize("change", CHANGES)
def test_the_generator_decides_and_nothing_else(change):
    torch.manual_seed(1)
    first = change(noise(), seeded(5))
    torch.manual_seed(2)
    assert torch.equal(change(noise(), seeded(5)), first)
    assert not torch.equal(change(noise(), seeded(6)), first)


@pytest.mark.parametrize("change", CHANGES)
def test_different_patches_get_different_changes(change):
    same = noise(1).expand(32, -1, -1, -1).contiguous()
    changed = change(same, seeded())
    distinct = {tuple(patch.flatten().tolist()) for patch in changed}
    assert len(distinct) == 8 if change is dihedral else len(distinct) == 32


@given(st.integers(0, 1000), st.integers(1, 20))
def test_dihedral_gives_one_of_the_eight_turns_and_flips(seed, count):
    batch = noise(count, size=5)
    for patch, turned in zip(batch, dihedral(batch, seeded(seed)), strict=True):
        assert sum(torch.equal(turned, variant) for variant in variants(patch)) == 1


def test_all_eight_turns_and_flips_are_about_equally_likely():
    same = noise(1, size=3).expand(4000, -1, -1, -1).contiguous()
    turned = dihedral(same, seeded())
    counts = [int((turned == variant).flatten(1).all(1).sum()) for variant in variants(same[0])]
    assert sum(counts) == 4000
    assert min(counts) > 400
    assert max(counts) < 600


@given(st.integers(0, 1000))
def test_stain_jitter_by_nothing_is_the_identity(seed):
    batch = torch.rand(4, 3, 6, 6, generator=seeded(seed))
    batch[0, 0] = 0
    assert torch.allclose(stain_jitter(batch, seeded(seed), amount=0), batch, rtol=0, atol=1 / 255 + 1e-5)


def test_colour_jitter_and_small_affine_by_nothing_are_the_identity():
    assert torch.allclose(colour_jitter(noise(), seeded(), amount=0), noise(), atol=1e-6)
    still = small_affine(noise(), seeded(), degrees=0, scale=0, shift=0)
    assert torch.allclose(still, noise(), atol=1e-5)


def test_stain_jitter_changes_colour_and_keeps_a_flat_patch_flat():
    flat = torch.tensor([0.6, 0.3, 0.65]).view(1, 3, 1, 1).expand(8, 3, 6, 6).contiguous()
    changed = stain_jitter(flat, seeded())
    assert torch.equal(changed, changed[:, :, :1, :1].expand_as(changed))
    assert 0 < (changed - flat).abs().max() < 0.25


def test_a_larger_amount_changes_more():
    small, large = ((stain_jitter(noise(), seeded(), amount=a) - noise()).abs().mean() for a in (0.02, 0.2))
    assert small < large


def test_small_affine_reflects_at_the_edge_and_brings_in_no_black():
    bright = torch.full((16, 3, 12, 12), 0.8)
    assert torch.allclose(small_affine(bright, seeded(), degrees=45, scale=0.5, shift=0.3), bright, atol=1e-5)
