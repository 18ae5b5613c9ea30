"""How a cohort lies on the disk: its layouts in words, the formats of its pictures, the check of its path.

Imports nothing heavy.
"""

import re
import zipfile
from pathlib import Path
from typing import Final

from doctogres.errors import CohortError, listed
from doctogres.files import looked_for
from doctogres.remote import local

TRAINING: Final = "train_data"
TEST: Final = "test_data"
PARTS: Final = (TRAINING, TEST)
LABELS: Final = "train_labels.csv"
TEST_LABELS: Final = "test_labels.csv"

LAYOUT: Final = (
    "a cohort holds train_data/img_0000.png, train_data/mask_0000.png, ... and train_labels.csv with the columns "
    "sample_index,label (or test_data/ alone, to predict); other names are read where a mask is called like its picture "
    "with `mask` before or after (a.png, a_mask.png), lies in a folder masks/, is outlined in a.geojson, or where the table has the "
    "columns image,mask,label: docs/your-data.md; most other layouts are recognised by "
    "`mlflow run . -e init --env-manager local -P data=FOLDER`, which writes a cohort.csv to pass as data=cohort.csv"
)

FORMATS: Final = {  # each has a reader in formats.py
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES: Final = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
OUTLINES: Final = ".geojson"  # masks as polygons
# Scanner files of one file each, read with OpenSlide where it is installed; no mask is one.
SCANNER_SUFFIXES: Final = (".svs", ".ndpi", ".scn", ".bif")
SLIDE_SUFFIXES: Final = (*SUFFIXES, *SCANNER_SUFFIXES)
FORMAT_NAMES: Final = " or ".join(", ".join(FORMATS).rsplit(", ", 1))
# Pictures that have no reader: reported where they are all there is of a slide. Any other file is none.
OTHER_PICTURES: Final = frozenset(
    re.findall(
        r"\S+",
        ".bmp .gif .webp .heic .heif .avif .jxl .jp2 .j2k .jpx .jpf .jfif .tga .ppm .pgm .pbm .pnm .exr .psd .dng .nii .nrrd "
        ".mha .dcm .dicom .mrxs .vms .vmu .czi .lif .nd2 .vsi .qptiff .btf .tf8 .isyntax .kfb .sdpc .oib "
        ".oif",
    )
)


def contents(folder: Path) -> str:
    """The first names in a folder, for a message."""
    return listed(sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []) or "nothing"


def check_path(data: str | Path) -> Path:
    """The path of a cohort's folder, zip or table; of an address, that of its copy.

    Raises:
        CohortError: it does not exist, or is none of these.
        DoctogresError: an address cannot be read, see `remote.local`.
    """
    path = local(data).expanduser()
    if not path.exists():
        raise CohortError(f"{looked_for(data)}; give the folder or the zip of a cohort: {LAYOUT}")
    if not path.is_dir() and path.suffix.lower() != ".csv" and not zipfile.is_zipfile(path):
        raise CohortError(f"{path} is neither a folder nor a readable zip nor a table (.csv): {LAYOUT}")
    return path
