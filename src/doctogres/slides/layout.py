"""How a cohort lies on the disk: its layout in words, the formats of its pictures, the check of its path.

Imports nothing heavy.
"""

import zipfile
from pathlib import Path
from typing import Final

from doctogres.errors import CohortError

LAYOUT: Final = (
    "a cohort holds train_data/img_0000.png, train_data/mask_0000.png, ... and train_labels.csv with the columns "
    "sample_index,label (or test_data/ alone, to predict); `mlflow run . -e demo_data` makes one to look at"
)

FORMATS: Final = {  # each has a reader in formats.py
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES: Final = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
FORMAT_NAMES: Final = " or ".join(", ".join(FORMATS).rsplit(", ", 1))


def check_path(data: str | Path) -> Path:
    """The path of a cohort's folder or zip.

    Raises:
        CohortError: it does not exist, or is neither.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise CohortError(f"{path} does not exist; give the folder or the zip of a cohort: {LAYOUT}")
    if not path.is_dir() and not zipfile.is_zipfile(path):
        raise CohortError(f"{path} is neither a folder nor a readable zip: {LAYOUT}")
    return path
