"""`python -m benchmarks.slides large|regions|plain FOLDER`: scanner files in memory and time.

`large` draws a slide of 100,000 x 80,000 pixels (0.4 GB, a minute) into FOLDER and prints the peak memory of cleaning and
cutting it. `regions` compares regions of it, or of `--slide FILE`, with bare OpenSlide reads. `plain` compares cleaning and
cutting the cohort in FOLDER with the sources of `--before SRC`, in turn, each in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.memory import peak_mib

TILE: Final = 512
SIZE: Final = (100_000, 80_000)  # width and height
KINDS: Final = 48  # different tiles of tissue
MASK_FACTOR: Final = 16
LESIONS: Final = 60
GLASS: Final = (190, 190, 188)
SIDE: Final = 224  # of the regions that are read
Rgb = npt.NDArray[np.uint8]


def tiles_of_tissue(random: np.random.Generator) -> list[Rgb]:
    """Textured tiles, the first one of glass."""
    tiles = [np.full((TILE, TILE, 3), GLASS, np.uint8)]
    for _ in range(KINDS):
        coarse = random.normal(0, 1, (TILE // 16, TILE // 16)).astype(np.float32)
        texture = cv2.resize(coarse, (TILE, TILE), interpolation=cv2.INTER_CUBIC)[..., None]
        noise = random.normal(0, 4, (TILE, TILE, 3))
        tiles.append((np.array((150, 80, 160)) + 25 * texture + noise).clip(0, 255).astype(np.uint8))
    return tiles


def tissue_map(random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which tile lies where, (rows, columns): some strips of tissue on glass."""
    rows, columns = -(-SIZE[1] // TILE), -(-SIZE[0] // TILE)
    inside = np.zeros((rows, columns), np.uint8)
    for number in range(5):
        centre = (columns // 2 + int(random.integers(-20, 20)), rows * (number + 1) // 6)
        cv2.ellipse(
            inside, centre, (int(random.integers(40, 75)), int(random.integers(6, 11))), 5, 0, 360, 1, cv2.FILLED
        )
    return np.where(inside > 0, random.integers(1, KINDS + 1, inside.shape), 0)


def encoded(tile: Rgb) -> bytes:
    return cv2.imencode(".jpg", tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def level_tiles(kinds: list[Rgb], places: npt.NDArray[np.int64], level: int) -> Iterator[bytes]:
    """The tiles of a level in JPEG, row by row: each shows 2^level x 2^level of the full size's."""
    by = 1 << level
    small = np.stack([cv2.resize(tile, (TILE // by, TILE // by), interpolation=cv2.INTER_AREA) for tile in kinds])
    rows, columns = -(-SIZE[1] // by // TILE), -(-SIZE[0] // by // TILE)
    padded = np.zeros((rows * by, columns * by), np.int64)
    padded[: places.shape[0], : places.shape[1]] = places
    known: dict[bytes, bytes] = {}
    for row in range(rows):
        for column in range(columns):
            part = padded[row * by : (row + 1) * by, column * by : (column + 1) * by]
            key = part.tobytes()
            if level == 0 or not part.any():
                known.setdefault(key, encoded(_joined(small, part)))
            yield known[key] if key in known else encoded(_joined(small, part))


def _joined(small: npt.NDArray[Any], part: npt.NDArray[np.int64]) -> Rgb:
    side = part.shape[0] * small.shape[1]
    return np.asarray(small[part].swapaxes(1, 2).reshape(side, side, 3), np.uint8)


def draw_large(folder: Path) -> Path:
    """The cohort with the large slide, drawn unless it is there: a pyramid, its mask, and three small pictures."""
    import tifffile

    from doctogres.slides.images import encode_png
    from doctogres.synthetic import make_cohort

    if (folder / "train_labels.csv").is_file():
        return folder
    random = np.random.default_rng(7)
    make_cohort(folder, slides=12, seed=7)
    labels = (folder / "train_labels.csv").read_text("utf-8").splitlines()
    kinds, places = tiles_of_tissue(random), tissue_map(random)
    with tifffile.TiffWriter(folder / "train_data/img_9000.tif", bigtiff=True) as file:
        for level in range(7):
            shape = (SIZE[1] >> level, SIZE[0] >> level, 3)
            file.write(
                level_tiles(kinds, places, level), shape=shape, dtype=np.uint8, tile=(TILE, TILE), compression="jpeg",
                photometric="ycbcr", subsampling=(2, 2), metadata=None, subfiletype=int(level > 0),
                resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    mask = np.zeros((SIZE[1] // MASK_FACTOR, SIZE[0] // MASK_FACTOR), np.uint8)
    rows, columns = np.nonzero(places)
    for chosen in random.choice(len(rows), LESIONS, replace=False).tolist():
        centre = int(columns[chosen] * TILE // MASK_FACTOR), int(rows[chosen] * TILE // MASK_FACTOR)
        cv2.circle(mask, centre, int(random.integers(10, 60)), 1, cv2.FILLED)
    (folder / "train_data/mask_9000.png").write_bytes(encode_png(mask.astype(np.bool_)))
    last = labels[-1].split(",")
    line = ",".join(["img_9000.png" if number == 0 else value for number, value in enumerate(last)])
    (folder / "train_labels.csv").write_text("\n".join([*labels, line]), encoding="utf-8")
    return folder


def clean_and_cut(root: Path) -> None:
    """Prints MiB before (libraries loaded) and at the peak, seconds, slides and patches; in a process of its own."""
    import tempfile

    from doctogres.cleaning.cohort import clean_cohort
    from doctogres.patches.cutting import cut_cohort
    from doctogres.presets import load_preset
    from doctogres.slides.table import CohortTable

    preset, before, start = load_preset("small"), peak_mib(), time.perf_counter()
    result = clean_cohort(root, preset.clean, seed=7)
    cleaned = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        manifest, _ = cut_cohort(CohortTable(result.table, root, ""), root, preset.patch, cache=Path(cache))
    kept = manifest.rows[manifest.rows["outcome"] == "kept"]
    large = int((kept["slide_id"] == "img_9000").sum())
    spent = cleaned - start, time.perf_counter() - cleaned
    print(before, peak_mib(), *spent, len(result.table), len(kept), large)


def in_process(root: Path, source: Path | None = None) -> list[float]:
    """What `clean_and_cut` prints in a process of its own, with these sources."""
    environment = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    command = [sys.executable, "-m", "benchmarks.slides", "measure", str(root)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return [float(number) for number in shown]


def regions(path: Path, repeats: int, count: int = 200) -> None:
    """Prints seconds for random regions of tissue, bare and as a source, in turn; the file's pages lie in memory."""
    import openslide

    from doctogres.slides.opening import open_slide
    from doctogres.slides.source import Rectangle

    random = np.random.default_rng(0)
    width, height = openslide.OpenSlide(path).dimensions
    places = random.integers(0, (width - SIDE, height - SIDE), (count, 2)).tolist()
    ratios, seconds = [], []
    for _ in range(repeats + 1):
        bare, source = openslide.OpenSlide(path), open_slide(path)
        start = time.perf_counter()
        expected = [np.asarray(bare.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB")) for x, y in places]
        middle = time.perf_counter()
        read = [source.region(Rectangle(x, y, x + SIDE, y + SIDE), (SIDE, SIDE)) for x, y in places]
        seconds.append(((middle - start) / count, (time.perf_counter() - middle) / count))
        ratios.append(seconds[-1][0] / seconds[-1][1])
        assert all(np.array_equal(one, other) for one, other in zip(expected, read, strict=True))
    own = 1e3 * median(ours for _, ours in seconds[1:])
    print(f"{count} regions of {SIDE} px: {own:.2f} ms each; speed against bare OpenSlide {spread(ratios[1:])}")


def spread(values: list[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def plain(root: Path, before: Path, repeats: int) -> None:
    """Prints the ratio of seconds with these sources to those with `before`."""
    ratios = []
    for number in range(repeats + 1):
        first, second = (in_process(root, source) for source in (before, None)) if number % 2 else (
            in_process(root, source) for source in (None, before)
        )  # fmt: skip
        old, new = (first, second) if number % 2 else (second, first)
        assert old[4:] == new[4:]
        if number:
            ratios.append([new[2] / old[2], new[3] / old[3], sum(new[2:4]) / sum(old[2:4])])
    for name, values in zip(("clean", "patch", "both"), zip(*ratios, strict=True), strict=True):
        print(f"{name}: {spread(list(values))} times the seconds before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("large", "regions", "plain", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slide", type=Path, help="regions of this slide")
    parser.add_argument("--before", type=Path, help="folder src of another version")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    if given.what == "measure":
        clean_and_cut(given.folder)
    elif given.what == "plain":
        plain(given.folder, given.before, given.repeats)
    elif given.what == "regions":
        regions(given.slide or draw_large(given.folder) / "train_data/img_9000.tif", given.repeats)
    else:
        before, peak, clean, cut, slides, patches, large = in_process(draw_large(given.folder))
        print(
            f"{slides:.0f} slides, one of {SIZE[0]} x {SIZE[1]} pixels: {before:.0f} MiB before, {peak:.0f} MiB at the peak, "
            f"clean {clean:.1f} s, patch {cut:.1f} s, {patches:.0f} patches, {large:.0f} of them of the large slide"
        )


if __name__ == "__main__":
    main()
