"""A zip that is larger unpacked than the disk."""

import zipfile
from pathlib import Path

import pytest

from doctogres.errors import DiskFullError
from doctogres.slides.archives import unpack_zip
from tests.disks import small_disk


def test_a_zip_that_does_not_fit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cohort.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("first.png", b"x" * 10)
        archive.writestr("second.png", b"x" * 2_000_000)
    with small_disk(tmp_path / "disk", kilobytes=1024) as disk:
        with pytest.raises(DiskFullError, match=f"^{disk.path}: .* 2 MB needed, 1.05 MB free"):
            unpack_zip(tmp_path / "cohort.zip", disk.path / "cohort")
        assert list(disk.path.iterdir()) == []
