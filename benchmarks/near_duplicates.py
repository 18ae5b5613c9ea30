"""Time and recall of the search for near-copies, on made hashes: `python -m benchmarks.near_duplicates [SLIDES ...]`.

Every twentieth slide is a copy of another one, turned at random, with a share of its hash bits changed. The hashes of
unrelated slides are independent, as those of real slides nearly are.
"""

import sys
import time

import numpy as np

from doctogres.cleaning.duplicates import HASH_BITS, SIDE, PictureHash, near_duplicates
from doctogres.slides.turns import TURNS

BIT_ERRORS = (0.0, 0.1, 0.2)  # copies saved again have 0 to 0.02, copies with a splat 0 to 0.23
COPY_SHARE = 20


def made_hashes(slides: int, error: float, seed: int = 0) -> tuple[list[PictureHash], set[tuple[int, int]]]:
    """Fingerprints, and the pairs of copies among them."""
    rng = np.random.default_rng(seed)
    everything = np.full((2, SIDE * SIDE // 8), 255, np.uint8)
    nothing = np.zeros_like(everything)
    prints: list[PictureHash] = []
    pairs = set()
    for index in range(slides):
        original = index - (slides - slides // COPY_SHARE)
        if original < 0:
            coefficients = rng.normal(size=(2, HASH_BITS, HASH_BITS)).astype(np.float16)
            grey = rng.integers(0, 256, (2, SIDE, SIDE), np.uint8)
        else:
            quarters, swapped = TURNS[int(rng.integers(len(TURNS)))]
            changed = rng.random((2, HASH_BITS, HASH_BITS)) < error
            copied = prints[original].coefficients
            coefficients = np.where(changed, -copied, copied).astype(np.float16)
            grey = np.rot90(prints[original].grey, quarters, axes=(1, 2))
            if quarters % 2:
                coefficients = coefficients.swapaxes(1, 2).copy()
            if quarters in (1, 2):
                coefficients[:, 1::2] *= -1
            if (quarters in (2, 3)) != swapped:
                coefficients[:, :, 1::2] *= -1
            grey = np.ascontiguousarray(grey[..., ::-1] if swapped else grey)
            pairs.add((original, index))
        prints.append(PictureHash(coefficients, grey, everything, nothing))
    return prints, pairs


def main() -> None:
    """Prints a table."""
    print("| slides | hash bits changed | seconds | copies found | others joined |\n|---|---|---|---|---|")
    for slides in map(int, sys.argv[1:] or ("1000", "10000", "100000")):
        for error in BIT_ERRORS:
            prints, pairs = made_hashes(slides, error)
            start = time.perf_counter()
            found = set(near_duplicates(prints))
            seconds = time.perf_counter() - start
            share = len(found & pairs) / len(pairs)
            print(f"| {slides} | {error:.0%} | {seconds:.1f} | {share:.2%} | {len(found - pairs)} |", flush=True)


if __name__ == "__main__":
    main()
