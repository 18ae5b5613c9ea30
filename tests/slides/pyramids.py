"""Pyramidal, tiled TIFFs of pictures, as scanners and their converters write them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

Rgb = npt.NDArray[np.uint8]
LOSSLESS = ("lzw", "adobe_deflate")


def tissue(width: int, height: int, seed: int = 0) -> Rgb:
    """Smooth stained tissue with noise on glass."""
    random = np.random.default_rng(seed)
    small = random.normal(0, 1, (height // 32 + 2, width // 32 + 2)).astype(np.float32)
    field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    share = np.clip(field, 0, 1)[..., None]
    rgb = (1 - share) * np.array((190, 190, 188)) + share * np.array((150, 80, 160))
    return np.asarray((rgb + random.normal(0, 3, rgb.shape)).clip(0, 255), np.uint8)


def halved(rgb: Rgb) -> Rgb:
    size = max(1, rgb.shape[1] // 2), max(1, rgb.shape[0] // 2)
    return np.asarray(cv2.resize(rgb[: 2 * size[1], : 2 * size[0]], size, interpolation=cv2.INTER_AREA), np.uint8)


def levels_of(rgb: Rgb, *, smallest: int = 200) -> list[Rgb]:
    """The picture and its copies, each half of the one before."""
    levels = [rgb]
    while max(levels[-1].shape) > smallest:
        levels.append(halved(levels[-1]))
    return levels


def write_pyramid(
    path: Path,
    rgb: Rgb,
    *,
    compression: str | None = "lzw",
    tile: int = 128,
    bigtiff: bool = True,
    mpp: float = 0.0,
    levels: int = 99,
    **options: Any,
) -> Path:
    """A generic pyramid; `mpp` is written as pixels per centimetre."""
    per_centimetre = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as file:
        for number, level in enumerate(levels_of(rgb)[:levels]):
            tags = per_centimetre if number == 0 else {"subfiletype": 1}
            file.write(
                level, tile=(tile, tile), compression=compression, photometric="rgb", metadata=None, **tags, **options
            )
    return path


def write_svs(path: Path, rgb: Rgb, *, mpp: float = 0.5, quality: int = 90) -> Path:
    """As Aperio's scanner writes it: levels in JPEG tiles, a thumbnail, a label and a macro picture in strips."""
    height, width = rgb.shape[:2]
    about = f"Aperio Image Library v11.2.1\r\n{width}x{height} [0,0 {width}x{height}] (240x240) JPEG/RGB Q={quality}"
    tiled: dict[str, Any] = {"tile": (240, 240), "compression": "jpeg", "compressionargs": {"level": quality}}
    levels = levels_of(rgb)
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            description = (
                f"{about}|AppMag = 20|MPP = {mpp}" if number == 0 else f"{about} -> {level.shape[1]}x{level.shape[0]}"
            )
            file.write(level, photometric="rgb", metadata=None, description=description, **tiled)
            if number == 0:
                file.write(
                    levels[-1], photometric="rgb", metadata=None, description="Aperio thumbnail", compression="jpeg"
                )
        for kind, mark in (("label", 1), ("macro", 9)):
            small = np.full((60, 90, 3), 200, np.uint8)
            file.write(
                small, photometric="rgb", metadata=None, description=f"Aperio\r\n{kind} 90x60", subfiletype=mark,
                compression="lzw",
            )  # fmt: skip
    return path
