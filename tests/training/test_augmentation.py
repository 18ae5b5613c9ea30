"""Augmentation of batches."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doctogres.training import augmentation
from doctogres.training.augmentation import DEFAULT, STAINS, Strength, augment_pixels, placements, stain_change

NOTHING = Strength(turns=False, degrees=0, scale=0, shift=0, stain=0, colour=0)
EACH = [
    replace(NOTHING, **{name: getattr(DEFAULT, name)})
    for name in ("turns", "degrees", "scale", "shift", "stain", "colour")
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=16, size=12):
    return torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=seeded(99))


def unit(pixels):
    return pixels.permute(0, 3, 1, 2) / 255


def copies(colour, count=8, size=6):
    return torch.tensor(colour, dtype=torch.uint8).expand(count, size, size, 3).contiguous()


def variants(patch):
    turns = [torch.rot90(patch, quarter, (1, 2)) for quarter in range(4)]
    return turns + [turn.flip(2) for turn in turns]


def same(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [DEFAULT, NOTHING, *EACH, Strength(True, 180, 0.9, 1, 0.9, 0.9)])
def test_shape_type_and_range(strength):
    pixels = noise()
    pixels[0], pixels[1] = 0, 255  # the ends of the range
    changed = augment_pixels(pixels, seeded(), strength)
    assert changed.shape == (16, 3, 12, 12)
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("strength", [DEFAULT, *EACH])
def test_the_generator_decides_and_nothing_else(strength):
    pixels = noise()
    torch.manual_seed(1)
    first = augment_pixels(pixels, seeded(5), strength)
    torch.manual_seed(2)
    assert torch.equal(augment_pixels(noise(), seeded(5), strength), first)
    assert not torch.equal(augment_pixels(noise(), seeded(6), strength), first)
    assert torch.equal(pixels, noise())


def test_how_many_patches_are_worked_on_at_once_changes_nothing(monkeypatch):
    whole = augment_pixels(noise(11), seeded(4))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(augmentation, "CACHED_PIXELS", 3 * 12**2)
    assert torch.allclose(augment_pixels(noise(11), seeded(4)), whole, atol=1e-6)


@given(st.integers(0, 1000))
def test_nothing_at_all_is_the_identity(seed):
    assert torch.allclose(augment_pixels(noise(4), seeded(seed), NOTHING), unit(noise(4)), atol=2e-5)


@pytest.mark.parametrize("strength", [DEFAULT, *EACH])
def test_different_patches_get_different_changes(strength):
    same_patch = noise(1).expand(32, -1, -1, -1)
    changed = augment_pixels(same_patch, seeded(), strength)
    distinct = sum(not any(same(patch, earlier) for earlier in changed[:row]) for row, patch in enumerate(changed))
    assert distinct == (8 if strength == EACH[0] else 32)


@given(st.integers(0, 1000), st.integers(1, 20))
def test_turns_give_one_of_the_eight_turns_and_flips(seed, count):
    pixels = noise(count, size=5)
    for patch, turned in zip(unit(pixels), augment_pixels(pixels, seeded(seed), EACH[0]), strict=True):
        assert sum(same(turned, variant) for variant in variants(patch)) == 1


def test_all_eight_turns_and_flips_are_about_equally_likely():
    pixels = noise(1, size=3).expand(4000, -1, -1, -1)
    turned = augment_pixels(pixels, seeded(), EACH[0])
    counts = [int(((turned - variant).abs() < 1e-4).flatten(1).all(1).sum()) for variant in variants(unit(pixels)[0])]
    assert sum(counts) == 4000
    assert min(counts) > 400
    assert max(counts) < 600


def test_a_placement_is_a_small_turn_zoom_and_shift_of_one_of_the_eight():
    places = placements(4000, seeded(), DEFAULT)
    turned, shift = places[:, :, :2], places[:, :, 2]
    zoom = torch.linalg.det(turned).abs().sqrt()
    degrees = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0]))
    off = (degrees + 45) % 90 - 45  # the eight stand at multiples of 90 degrees
    assert torch.allclose(turned @ turned.mT, zoom.square()[:, None, None] * torch.eye(2), atol=1e-5)
    for value, bound in ((zoom - 1, 0.1), (off, 15), (shift / 2, 0.05)):
        assert value.abs().max() <= bound + 1e-4
        assert value.abs().max() > 0.95 * bound
        assert abs(value.mean()) < 0.1 * bound
        assert value.std() == pytest.approx(bound / 3**0.5, rel=0.1)  # even over the whole range


def test_a_shift_moves_by_that_share_of_the_side(monkeypatch):
    monkeypatch.setattr(augmentation, "_even", lambda generator, *shape: torch.ones(shape))
    moved = augment_pixels(noise(2, size=20), seeded(), replace(NOTHING, shift=0.1))
    assert same(moved[:, :, :18, :18], unit(noise(2, size=20))[:, :, 2:, 2:])


def test_edges_are_reflected_and_no_black_comes_in():
    pixels = copies([204, 204, 204], count=16, size=12)
    moved = augment_pixels(pixels, seeded(), replace(NOTHING, turns=True, degrees=45, scale=0.5, shift=0.3))
    assert same(moved, unit(pixels))


@pytest.mark.parametrize("stain", range(3))
def test_a_stain_changes_along_its_own_axis(stain):
    amounts = torch.tensor([0.4, 0.7, 0.1])  # densities of haematoxylin, eosin and the residual
    density = (STAINS @ amounts).view(1, 3, 1)
    scales, shifts = torch.zeros(1, 3), torch.zeros(1, 3)
    scales[0, stain], shifts[0, stain] = 0.05, -0.02
    matrix, offset = stain_change(scales, shifts)
    wanted = (0.05 * amounts[stain] - 0.02) * STAINS[:, stain]
    assert torch.allclose((matrix @ density + offset).flatten(), wanted, atol=1e-6)
    assert torch.allclose(STAINS.norm(dim=0), torch.ones(3))


def test_the_published_axes():
    ratios = STAINS[:, 1] / STAINS[1, 1]
    assert torch.allclose(ratios, torch.tensor([0.07, 0.99, 0.11]) / 0.99)  # eosin


def test_pixels_follow_the_densities(monkeypatch):
    draws = iter([torch.zeros(1, 4), torch.tensor([[[1.0, -0.5, 0.2]], [[-0.3, 0.8, -1.0]]]), torch.zeros(2, 1, 1, 1)])
    monkeypatch.setattr(augmentation, "_even", lambda generator, *shape: next(draws))
    colour = torch.tensor([150.0, 80.0, 170.0])
    changed = augment_pixels(copies([150, 80, 170], count=1), seeded(), replace(NOTHING, stain=0.1))
    density = -torch.log10((colour + 1) / 256)
    amounts = torch.linalg.solve(STAINS, density)
    added = STAINS @ (amounts * torch.tensor([0.1, -0.05, 0.02]) + torch.tensor([-0.03, 0.08, -0.1]))
    wanted = colour / 255 * 10**-added
    assert torch.allclose(changed, wanted.view(1, 3, 1, 1).expand(1, 3, 6, 6), atol=1e-5)


def test_contrast_turns_around_the_mean_and_brightness_moves_it(monkeypatch):
    pixels = noise(1) // 2 + 60  # nothing reaches the ends of the range
    mean = unit(pixels).mean()
    for contrast, brightness in ((0.1, 0.0), (0.0, -0.1), (-0.1, 0.1)):
        draws = iter([torch.zeros(1, 4), torch.zeros(2, 1, 3), torch.tensor([contrast, brightness]).view(2, 1, 1, 1)])
        monkeypatch.setattr(augmentation, "_even", lambda generator, *shape, draws=draws: next(draws))
        changed = augment_pixels(pixels, seeded(), replace(NOTHING, colour=1))
        wanted = (unit(pixels) - mean) * (1 + contrast) + mean * (1 + brightness)
        assert torch.allclose(changed, wanted, atol=1e-4)


def test_a_larger_amount_changes_more():
    small, large = (
        (augment_pixels(noise(), seeded(), replace(NOTHING, stain=amount)) - unit(noise())).abs().mean()
        for amount in (0.02, 0.2)
    )
    assert small < large
