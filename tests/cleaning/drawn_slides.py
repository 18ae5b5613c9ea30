"""Drawn slides: stained tissue on glass, a cartoon in its silhouette, a splat."""

import cv2
import numpy as np

from doctogres.slides.images import encode_png

GLASS = (190, 190, 188)
STAINS = {"usual": (150, 80, 160), "pale": (222, 196, 218), "dark": (72, 38, 104), "pink": (220, 120, 160)}


def draw_tissue(seed, *, stain="usual", size=(384, 512)):
    """A slide (height, width, 3) and its lesion mask: two textured strips with dark nuclei."""
    rng = np.random.default_rng(seed)
    rgb = np.full((*size, 3), GLASS, np.float32)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (*size, 1)).astype(np.float32), (0, 0), 6)[..., None]
    inside = np.zeros(size, np.uint8)
    for _ in range(2):
        centre = rng.integers((120, 90), (size[1] - 120, size[0] - 90))
        axes = rng.integers((60, 25), (110, 60))
        cv2.ellipse(inside, centre.tolist(), axes.tolist(), float(rng.integers(180)), 0, 360, 1, cv2.FILLED)
    tissue = np.array(STAINS[stain]) + texture / texture.std() * 22
    rgb = np.where(inside[..., None] > 0, tissue, rgb)
    lesion = np.zeros(size, np.uint8)
    ys, xs = np.nonzero(inside)
    for index in rng.integers(0, len(ys), 5):
        cv2.circle(lesion, (int(xs[index]), int(ys[index])), int(rng.integers(8, 20)), 1, cv2.FILLED)
    lesion &= inside
    rgb = rgb + rng.normal(0, 2, rgb.shape)
    return rgb.clip(0, 255).astype(np.uint8), lesion.astype(bool)


def draw_cartoon(rgb):
    """The slide with its tissue's silhouette filled by flat greens and browns."""
    inside = np.abs(rgb.astype(int) - GLASS).max(axis=2) > 20
    face = np.full_like(rgb, (110, 140, 40))
    face[rgb.shape[0] // 2 :] = (60, 100, 40)
    face[:, : rgb.shape[1] // 5] = (120, 70, 30)
    return np.where(inside[..., None], face, rgb)


def draw_splat(rgb, mask, *, centre=(256, 60), radius=52):
    """The slide and its mask with a glossy green star on them."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    reach = radius * (0.75 + 0.25 * np.cos(5 * angles))
    points = np.stack([centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles)], 1).astype(np.int32)
    region = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(region, [points], 1)
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]]
    shade = 1 - 0.5 * np.hypot(xs - centre[0], ys - centre[1]) / radius
    green = (np.array([60, 230, 10]) * shade[..., None]).clip(0, 255)
    slimed = np.where(region[..., None] > 0, green, rgb).astype(np.uint8)
    cv2.ellipse(slimed, (centre[0] - 12, centre[1] - 12), (10, 4), 30, 0, 360, (255, 255, 255), cv2.FILLED)
    return slimed, mask | (region > 0)


def write_slide(root, slide, rgb, mask):
    (root / f"train_data/{slide}.png").write_bytes(encode_png(rgb))
    (root / f"train_data/{slide.replace('img', 'mask')}.png").write_bytes(encode_png(mask))
