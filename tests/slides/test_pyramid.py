"""Regions of pyramids are those of the plain picture."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from doctogres.files import sweep
from doctogres.slides import levels, pyramid
from doctogres.slides.costs import CostlyError
from doctogres.slides.formats import ColourModeError, ImageError, TooManyPixelsError
from doctogres.slides.images import encode_png
from doctogres.slides.masks import SizeMismatchError, read_with_mask
from doctogres.slides.opening import open_slide
from doctogres.slides.pyramid import Pyramid
from doctogres.slides.source import DecodedPicture, Rectangle, SlideSource
from tests.slides.pyramids import LOSSLESS, halved, tissue, write_pyramid, write_svs

RGB = tissue(1500, 1100)
PARTS = [
    (0, 0, 224, 224),
    (700, 433, 924, 657),
    (1400, 1000, 1624, 1224),
    (-50, -60, 174, 164),
    (1276, 876, 1500, 1100),
]
KINDS = {f"{kind}-{big}.tif": (kind, big) for kind in (*LOSSLESS, "jpeg") for big in (False, True)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pyramids")
    found = {
        name: write_pyramid(folder / name, RGB, compression=kind, bigtiff=big, mpp=0.25)
        for name, (kind, big) in KINDS.items()
    }
    return found | {"slide.svs": write_svs(folder / "slide.svs", RGB)}


def compared(path: Path, part: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    rectangle = Rectangle(*part)
    read = Pyramid.open(path, path.name).region(rectangle, size)
    return np.abs(read.astype(int) - DecodedPicture(RGB).region(rectangle, size))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [*KINDS, "slide.svs"])
def test_a_region_is_the_crop_of_the_plain_picture(files: dict[str, Path], name: str, part: tuple[int, ...]) -> None:
    for size in ((224, 224), (112, 100), (300, 310)):
        difference = compared(files[name], part, size)
        if "jpeg" in name or "svs" in name:
            assert difference.mean() < 5
        else:
            assert difference.max() == 0


def spied(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Pyramid, list[tuple[int, ...]]]:
    """A pyramid, and of all that is read of it: left, top, level, width, height."""
    slide, read = Pyramid.open(path, path.name), []
    pixels = slide._pixels

    def noted(*given: int) -> npt.NDArray[np.uint8]:
        read.append(given)
        return pixels(*given)

    monkeypatch.setattr(slide, "_pixels", noted)
    return slide, read


def test_a_large_region_is_read_from_a_reduced_copy(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "EXACT_PIXELS", 100)
    slide, read = spied(files["lzw-True.tif"], monkeypatch)
    for part in ((0, 0, 1500, 1100), (130, 90, 1130, 1090), (-200, -100, 1400, 1500)):
        rectangle = Rectangle(*part)
        near = slide.region(rectangle, (100, 100)).astype(int) - DecodedPicture(RGB).region(rectangle, (100, 100))
        assert np.abs(near).mean() < 3  # within half a pixel
    assert {level for _, _, level, _, _ in read} == {2}  # a quarter; an eighth would be less than twice what is wanted


def test_a_large_region_is_read_strip_by_strip(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "EXACT_PIXELS", 100)
    whole, size = Rectangle(0, 0, 1500, 1100), (250, 180)
    expected = Pyramid.open(files["lzw-True.tif"], "a").region(whole, size)
    monkeypatch.setattr(pyramid, "STRIP_PIXELS", 20_000)
    slide, read = spied(files["lzw-True.tif"], monkeypatch)
    assert np.abs(slide.region(whole, size).astype(int) - expected).mean() < 1.5
    sizes = [width * height for _, _, _, width, height in read]
    assert len(sizes) > 10
    assert max(sizes) <= 20_000


@pytest.mark.parametrize("side", [4096, 700, 100])
def test_the_working_picture_is_halved_until_it_fits(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(pyramid, "WORKING_SIDE", side)
    expected = RGB
    while max(expected.shape) > side:
        expected = halved(expected)
    working = Pyramid.open(files["lzw-True.tif"], "a").working
    assert working.shape == expected.shape
    difference = np.abs(working.astype(int) - expected)
    assert difference.max() == 0 if side == 4096 else difference.mean() < 2


def test_bytes_are_read_as_a_file_is_and_leave_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    slide: SlideSource = open_slide(files["slide.svs"].read_bytes(), name="a")
    assert slide.size == (1500, 1100)
    assert len(list(tmp_path.iterdir())) == 1
    assert slide.region(Rectangle(10, 10, 40, 40), (30, 30)).shape == (30, 30, 3)
    del slide
    assert not list(tmp_path.iterdir())


def test_the_bytes_that_a_killed_process_was_reading_are_swept(files: dict[str, Path], tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from doctogres.slides.pyramid import Pyramid; "
        "slide = Pyramid.open(Path(sys.argv[1]).read_bytes(), 'a'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", program, str(files["slide.svs"])], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_scanner_files_and_large_pyramids_are_read_in_regions(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_pyramid(path: Path) -> bool:
        return isinstance(open_slide(path), Pyramid)

    small = files["lzw-True.tif"]
    assert not is_pyramid(small)
    assert np.array_equal(open_slide(small).working, RGB)
    assert is_pyramid(files["slide.svs"])
    renamed = tmp_path / "slide.tif"
    renamed.write_bytes(files["slide.svs"].read_bytes())
    assert is_pyramid(renamed)  # by Aperio's description
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    assert is_pyramid(small)
    assert not is_pyramid(write_pyramid(tmp_path / "flat.tif", RGB, levels=1))  # no reduced copy
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, RGB)
    assert not is_pyramid(plain)  # no tiles


def test_what_the_scanner_left_out_is_background(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", RGB)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert isinstance(page, tifffile.TiffPage)
        tag = page.tags["TileByteCounts"]
        content[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = bytes(tag.valuebytecount)
    path.write_bytes(content)
    assert (Pyramid.open(path, "a").region(Rectangle(0, 0, 240, 240), (240, 240)) == 255).all()


def test_without_openslide_the_sentence_says_what_to_install(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImageError, match="slide.svs is a scanner file .* `pip install openslide-python openslide-bin`"):
        open_slide(files["slide.svs"], name="slide.svs")


def changed(path: Path, to: Path, tags: dict[int, int]) -> Path:
    """The file with other values of some tags of its first page."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        first = file.pages.first
        assert isinstance(first, tifffile.TiffPage)
        for tag, value in tags.items():
            found = first.tags[tag]
            struct.pack_into({3: "<H", 4: "<I"}[int(found.dtype)], content, found.valueoffset, value)
    to.write_bytes(content)
    return to


LIES = {
    "huge": (
        {256: 10_000_000, 257: 10_000_000},
        TooManyPixelsError,
        "has 10000000 x 10000000 pixels, more than the limit of",
    ),
    "wide": (
        {256: 2_000_000},
        ImageError,
        "is truncated or damaged: .* tiles of 2000000 x 1100 pixels lie beyond the end",
    ),
    "tiles": ({322: 40_000, 323: 40_000}, CostlyError, "has tiles of 1600000000 pixels, more than the limit"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_before_openslide_believes_it(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    monkeypatch.setattr(Pyramid, "open", None)
    tags, error, words = LIES[name]
    with pytest.raises(error, match=f"a.tif {words}"):
        open_slide(changed(files["lzw-True.tif"], tmp_path / "a.tif", tags), name="a.tif")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["slide.svs", "jpeg-True.tif"])
def test_a_truncated_pyramid_is_refused(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    content = files[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=f"{name} .*(truncated or damaged|damaged inside).*again"):
        open_slide(path, name=name).region(Rectangle(0, 0, 1500, 1100), (100, 100))


def test_a_pyramid_that_is_turned_or_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    turned = write_pyramid(tmp_path / "a.tif", RGB, extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(ImageError, match="a is stored rotated; .* export it upright"):
        open_slide(turned, name="a")
    deep = write_pyramid(tmp_path / "b.tif", RGB.astype(np.uint16))
    with pytest.raises(ColourModeError, match="b holds 16-bit values, .* export it as 8-bit RGB"):
        open_slide(deep, name="b")


def test_a_tile_that_is_damaged_is_an_error_of_the_region(files: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(files["slide.svs"].read_bytes())
    with tifffile.TiffFile(files["slide.svs"]) as file:
        place = file.pages[0].dataoffsets[0]
    content[place : place + 400] = bytes(400)
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    slide = open_slide(path, name="a.svs")
    with pytest.raises(ImageError, match="a.svs is damaged inside .* export it again"):
        slide.region(Rectangle(0, 0, 100, 100), (50, 50))


def test_pages_in_a_circle_are_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(files["slide.svs"].read_bytes())
    with tifffile.TiffFile(files["slide.svs"]) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset
    count = struct.unpack_from("<H", content, last)[0]
    struct.pack_into("<I", content, last + 2 + 12 * count, first)
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="a.svs is damaged, .*again"):
        open_slide(path, name="a.svs")


def test_a_slide_without_a_small_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "WORKING_SIDE", 300)
    slide = Pyramid.open(write_pyramid(tmp_path / "a.tif", RGB, levels=1), "a")
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "1000000")
    with pytest.raises(TooManyPixelsError, match="a has no reduced copy of 1500 x 1100 pixels .* --pyramid"):
        _ = slide.working


@pytest.mark.parametrize("seed", range(40))
def test_damaged_pyramids_are_named_errors(files: dict[str, Path], tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(files[["slide.svs", "lzw-False.tif", "jpeg-True.tif"][seed % 3]].read_bytes())
    with tifffile.TiffFile(files["slide.svs"]) as file:
        places = [page.offset for page in file.pages] if seed % 3 == 0 else [0]
    for _ in range(6):
        start = (
            int(random.choice(places)) + int(random.integers(400)) if seed % 2 else int(random.integers(len(content)))
        )
        content[start % len(content)] = int(random.integers(256))
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    refusal = "a.svs "
    try:
        slide = open_slide(path, name="a.svs")
        assert slide.working.shape[2] == 3
        assert slide.region(Rectangle(300, 200, 1300, 1000), (100, 100)).shape == (100, 100, 3)
    except ImageError as error:
        refusal = str(error)
    assert refusal.startswith("a.svs ")


@pytest.mark.parametrize("size", [(1500, 1100), (94, 69), (93, 68), (375, 275), (24, 18)])
def test_the_mask_of_a_pyramid_may_be_reduced(files: dict[str, Path], size: tuple[int, int]) -> None:
    mask = np.zeros(size[::-1], bool)
    mask[5:9, 6:12] = True
    slide = read_with_mask(files["slide.svs"], encode_png(mask))
    assert slide.picture.size == (1500, 1100)
    assert np.array_equal(slide.mask, mask)


@pytest.mark.parametrize("size", [(1501, 1100), (94, 72), (20, 15), (3000, 2200), (1100, 1500)])
def test_a_mask_of_another_ratio_or_far_smaller_is_refused(files: dict[str, Path], size: tuple[int, int]) -> None:
    words = f"m has {size[0]} x {size[1]} pixels, p 1500 x 1100; give the mask of this slide, .* at most 64 times"
    with pytest.raises(SizeMismatchError, match=words):
        read_with_mask(files["slide.svs"], encode_png(np.ones(size[::-1], bool)), name="p", mask_name="m")
