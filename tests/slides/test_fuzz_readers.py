"""Whatever bytes a picture or a zip holds, the readers answer with what its header says or with the named error.

As a program (`python tests/slides/test_fuzz_readers.py pictures|zips FIRST LAST FOLDER`) it reads seeded damage and keeps the
input under way in FOLDER, so that a decoder that crashes or hangs names it.
"""

import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctogres.errors import CohortError
from doctogres.slides.archives import unpack_zip
from doctogres.slides.formats import ImageError, TooManyPixelsError
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from tests.slides.hostile_files import (
    SIGNATURE,
    announced_size,
    damaged,
    hostile_pictures,
    hostile_zips,
    patched,
    valid_pictures,
    valid_zip,
    zip_of,
)

VALID, HOSTILE, ZIPS = valid_pictures(), hostile_pictures(), hostile_zips()
STARTS = (
    SIGNATURE,
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xc0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0",
)
ROUNDS = {"pictures": 5000, "zips": 2000}  # of the slow tests, each kind in one subprocess
SMALL = "3000000"  # pixels: what random headers announce need not be decoded to find out what a decoder does with it

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about tags that it skips


@pytest.fixture(scope="module", autouse=True)
def small_limit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCTOGRES_MAX_PIXELS", SMALL)
        yield


def named(error, name):
    if name not in str(error):
        pytest.fail(f"the error does not name {name}: {error}")


def check_picture(data, name):
    """Whether `data` was read as a picture; anything but an answer that fits the header or the named error fails."""
    size, read = None, False
    try:
        size = announced_size(data, name=name)
    except ImageError as error:
        named(error, name)
    for reader, kind, depth in ((read_rgb, np.uint8, (3,)), (read_mask, np.bool_, ())):
        try:
            array = reader(data, name=name)
        except ImageError as error:
            named(error, name)
        else:
            assert size is not None
            assert array.dtype == kind
            assert array.shape == (size[1], size[0], *depth)
            read = True
    return read


def check_zip(data, folder):
    """Whether `data` was unpacked; anything outside the target, left over or beyond the announced size fails."""
    folder.mkdir()
    packed, target = folder / "data.zip", folder / "unpacked"
    packed.write_bytes(data)
    try:
        unpack_zip(packed, target)
    except CohortError as error:
        named(error, str(packed))
    if not target.exists():
        assert list(folder.iterdir()) == [packed]
        return False
    assert set(folder.iterdir()) == {packed, target}
    with zipfile.ZipFile(packed) as archive:
        announced = sum(member.file_size for member in archive.infolist())
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= announced
    return True


@pytest.mark.parametrize("name", VALID)
def test_a_valid_picture_is_read_or_refused_by_its_mode(name):
    assert check_picture(VALID[name], name) == (name not in ("float.tif", "cmyk.tif", "cmyk.jpg", "pages.tif"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_read_or_named(name, monkeypatch):
    monkeypatch.delenv("DOCTOGRES_MAX_PIXELS")
    read = check_picture(HOSTILE[name], name)
    assert not (read and ("-large." in name or "13000" in name))  # which hold next to nothing of what they announce


@pytest.mark.parametrize("name", ["ihdr-4294967295-4-8-0.png", "sof-largest.jpg", "size-most.tif", "size-large.tif"])
def test_the_limit_is_checked_before_anything_is_decoded(name):
    for reader in (announced_size, read_rgb, read_mask):
        with pytest.raises(TooManyPixelsError, match=f"{name}.*DOCTOGRES_MAX_PIXELS"):
            reader(HOSTILE[name], name=name)


@pytest.mark.parametrize("name", VALID)
def test_no_truncated_picture_is_read(name):
    data = VALID[name]
    for length in {*range(0, len(data) - 1, 23), *range(len(data) - 12, len(data) - 1)}:
        # The end of a TIFF may be tags that no reader needs, and the pixels of its second page.
        assert not check_picture(data[:length], name) or name.endswith(".tif")


@pytest.mark.parametrize("way", ["raw", "tiff_adobe_deflate", "fax"])
def test_a_tiff_without_its_last_pixels_is_not_read(way):
    data = VALID[f"{way}.tif"]
    tags = struct.unpack_from("<I", data, 4)[0]
    for length in range(9, len(data) if tags < 100 else tags, 23):
        assert not check_picture(data[:length], way)


@pytest.mark.parametrize("name", ["tiff_adobe_deflate.tif", "deep-deflate.tif", "rgb.png"])
def test_damaged_pixels_with_a_checksum_are_not_read(name):
    data = VALID[name]
    start = data.index(b"\x78", 8)  # zlib's first byte
    for place in range(start + 20, start + 700, 40):
        flipped = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        assert not check_picture(flipped, name)


@pytest.mark.parametrize("name", VALID)
def test_seeded_damage_is_read_or_named(name):
    for seed in range(30):
        check_picture(damaged(VALID[name], seed), name)


@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_noise_behind_a_signature_is_read_or_named(start, noise):
    check_picture(start + noise, "noise")


@settings(max_examples=150)
@given(st.sampled_from(sorted(VALID)), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8))
def test_changed_bytes_are_read_or_named(name, changes):
    data = bytearray(VALID[name])
    for place, value in changes:
        data[place % len(data)] = value
    check_picture(bytes(data), name)


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_named_and_leaves_nothing(name, tmp_path):
    assert not check_zip(ZIPS[name], tmp_path / "work")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert not Path("/tmp/doctogres-x").exists()


def test_no_more_is_written_than_was_counted(tmp_path):
    liar = patched(zip_of(("a", bytes(2_000_000))), 24, struct.pack("<I", 10))
    assert check_zip(patched(liar, 16, struct.pack("<I", zlib.crc32(bytes(10)))), tmp_path / "work")
    assert (tmp_path / "work" / "unpacked" / "a").stat().st_size == 10


def test_folders_written_by_other_programs_are_unpacked(tmp_path):
    data = zip_of(("./", b""), ("slides\\", b""), ("slides\\a.png", b"x"), ("__MACOSX/../a", b"y"))
    assert check_zip(data, tmp_path / "work")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")] == ["work/unpacked/slides/a.png"]


def test_no_truncated_zip_is_unpacked(tmp_path):
    data = valid_zip()
    assert check_zip(data, tmp_path / "whole")
    for length in range(0, len(data), 3):
        assert not check_zip(data[:length], tmp_path / str(length))


def test_a_damaged_zip_is_unpacked_or_named(tmp_path):
    for seed in range(200):
        check_zip(damaged(valid_zip(), seed), tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("what", ROUNDS)
def test_no_damage_crashes_or_hangs_the_process(what, tmp_path):
    command = [sys.executable, __file__, what, "1000", str(1000 + ROUNDS[what]), str(tmp_path)]
    under_way = tmp_path / "under-way"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(command)} hangs at {under_way.read_text()}")
    reached = under_way.read_text() if under_way.exists() else "its start"
    assert done.returncode == 0, (
        f"{' '.join(command)} ended at {reached}: {done.stderr[-2000:].decode(errors='replace')}"
    )


def read_damage(what, first, last, folder):
    pictures = sorted((VALID | {name: data for name, data in HOSTILE.items() if len(data) < 5000}).items())
    archives = [("valid", valid_zip()), *sorted((name, data) for name, data in ZIPS.items() if len(data) < 5000)]
    files = pictures if what == "pictures" else archives
    for seed in range(first, last):
        name, data = files[seed % len(files)]
        (folder / "under-way").write_text(f"damaged({name}, {seed})")
        if what == "pictures":
            check_picture(damaged(data, seed), name)
        else:
            check_zip(damaged(data, seed), folder / str(seed))


if __name__ == "__main__":
    os.environ["DOCTOGRES_MAX_PIXELS"] = SMALL
    warnings.simplefilter("ignore")
    read_damage(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
