"""A file of less than a megabyte takes at most 500 MB to read or to refuse, and a large slide or mask is read.

As a program (`python tests/slides/test_costs.py WIDTHxHEIGHT ...`) it prints what reading such files of every kind takes.
"""

import ctypes
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from doctogres.slides.costs import CostlyError
from doctogres.slides.formats import ImageError, TooManyPixelsError
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from tests.slides.costly_files import costly_jpeg, costly_makers, costly_png, costly_tiff, small_but_costly

MEGABYTE = 10**6
MOST = 500 * 2**20
LONGEST_JPEG = 65_535  # pixels on a side
SIZES = ("14000x14000", "8400x8400", "99000x2000")

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak memory from /proc")


@pytest.mark.parametrize(
    ("make", "width", "height"),
    [
        (costly_png("rgb-8"), 14_000, 14_000),
        (costly_png("rgba-16"), 8_000, 8_000),
        (costly_jpeg(3), 10_000, 10_000),
        (costly_jpeg(3, progressive=True), 10_000, 10_000),
        (costly_tiff("rgb"), 10_000, 10_000),
        (costly_tiff("rgb-16", rows=16), 5_000, 5_000),
        (costly_tiff("rgb", tile=16_384), 5_000, 5_000),
        (costly_tiff("rgb", tile=16, wide=8192), 16, 90_000),
        (costly_tiff("rgb", tile=16_384, kind_of_size=9), 5_000, 5_000),
        (costly_tiff("rgba", scheme=1, rows=1), 10_000, 10_000),
    ],
)
def test_a_short_file_of_many_pixels_is_refused_with_its_cost(make, width, height):
    data = make(width, height)
    assert len(data) < MEGABYTE
    for read in (read_rgb, read_mask):
        with pytest.raises(
            CostlyError, match=rf"^p has {len(data)} bytes, but announces {width} x .* or raise .*_PIXELS "
        ):
            read(data, name="p")


def test_many_scans_of_a_jpeg_are_refused():
    with pytest.raises(CostlyError, match="cost"):
        read_rgb(costly_jpeg(1, progressive=True, scans=2000)(3000, 3000), name="p")


def test_a_side_is_limited():
    for width, height in ((1, 199_999_999), (199_999_999, 1), (100_001, 1)):
        with pytest.raises(TooManyPixelsError, match=f"p has {width} x {height} pixels, .* 100000 on a side; crop it"):
            read_mask(costly_tiff("bits", scheme=1)(width, height), name="p")


@pytest.mark.parametrize("kind", ["cmyk", "lab", "float-32", "whole-32"])
def test_the_colours_of_a_mask_are_refused_by_the_header(kind):
    with pytest.raises(ImageError, match="^m stores its colours as .*8-bit grey") as error:
        read_mask(costly_tiff(kind)(10, 190)[:-20], name="m")  # whose pixels cannot be decoded
    assert error.value.code == "colour_mode"


def test_the_limit_on_pixels_raises_that_on_costs(monkeypatch):
    data = costly_tiff("rgb-16", rows=16)(3_400, 3_400)
    with pytest.raises(CostlyError):
        read_rgb(data)
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "400000000")
    assert read_rgb(data).shape == (3_400, 3_400, 3)


def test_a_longer_file_may_cost_more():
    data = costly_tiff("rgb-16", rows=16)(3_400, 3_400)
    assert read_rgb(data + bytes(2_000_000)).shape == (3_400, 3_400, 3)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("kind", ["grey-1", "grey-8", "palette-8", "rgb-8", "rgba-8"])
def test_a_mask_of_a_large_slide_is_read(kind):
    side = 14_000 if kind.startswith("grey") else 10_000
    lines = measured([f"{side}x{side}"], f"^{kind}.png$")
    assert any(f"mask {(side, side)}" in line for line in lines), lines


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("size", [*SIZES, "small"])
def test_no_short_file_takes_much_memory(size):
    lines = measured([size], "")
    costly = [line for line in lines if int(line.split()[0]) > MOST // MEGABYTE]
    assert len(lines) > 10
    assert not costly


def measured(sizes: list[str], pattern: str) -> list[str]:
    """The lines that this module prints as a program."""
    command = [sys.executable, __file__, pattern, *sizes]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def files(size: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    if size == "small":
        yield from small_but_costly().items()
        return
    width, height = map(int, size.split("x"))
    for name, make in costly_makers():
        if name.endswith(".jpg") and max(width, height) > LONGEST_JPEG:
            continue
        if re.search(pattern, name) and len(data := make(width, height)) < MEGABYTE:
            yield f"{name} {size}", data


def in_kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def cost_of(read: Callable[[], np.ndarray]) -> tuple[float, float, str]:
    """Megabytes that the peak of memory rises by, processor seconds, and what came of it."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before, start = in_kilobytes("VmRSS"), time.process_time()
    try:
        said = str(read().shape)
    except ImageError as error:
        said = str(error.code)
    return (in_kilobytes("VmHWM") - before) * 1024 / MEGABYTE, time.process_time() - start, said


def main() -> None:
    warnings.simplefilter("ignore")
    for size in sys.argv[2:]:
        for name, data in files(size, sys.argv[1]):
            for what, read in (("rgb", read_rgb), ("mask", read_mask)):
                megabytes, seconds, said = cost_of(partial(read, data, name="p"))
                print(f"{megabytes:.0f} MB {seconds:.2f} s {len(data)} {name} {what} {said}", flush=True)


if __name__ == "__main__":
    main()
