"""Names that MLflow and every file system take, made of what a laboratory calls its classes and slides."""

import re
import unicodedata
from typing import Final

from doctogres.files import digest

LONGEST: Final = 200  # bytes; MLflow takes 250 characters in a key, file systems 255 bytes in a name
DIGITS: Final = 8  # of the digest that keeps two names apart whose letters were replaced
IN_KEYS: Final = r"[^\w.\- ]"
IN_FILES: Final = r"[^\w.\-]"
DEVICES: Final = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE
)  # Windows takes no file of these names


def class_key(name: str) -> str:
    """A class's name as a part of the key of a metric, parameter or tag: `Luminal A`, `HER2_pos_-13d329f6`.

    Letters and digits of every alphabet, spaces, `_`, `-` and `.` stay. A slash does not: `f1/low` and `f1/low/left`
    would be a file and a folder of the same name. Two names never give the same key, and a key gives itself.
    """
    return _safe(name, name.replace("+", "pos"), IN_KEYS)


def metric_name(name: str) -> str:
    """A metric's name with each part between slashes as in `class_key`."""
    return "/".join(map(class_key, name.split("/")))


def interval(name: str, low: float, high: float) -> dict[str, float]:
    """The two ends of a metric's interval by name: `ci/macro_f1_low` and `ci/macro_f1_high`.

    They are a family of their own in MLflow, so that a comparison of runs shows the metrics without them.
    """
    return {f"ci/{name}_low": low, f"ci/{name}_high": high}


def artifact_name(name: str) -> str:
    """A slide's or class's name as the name of an artifact, without a suffix: `case_1-e3056894` for `case#1`.

    In addresses `#`, `?` and `%` have a meaning, and a tracking server cuts a name at the first of them.
    """
    return _safe(name, name, IN_FILES)


def _safe(name: str, spelled: str, unsafe: str) -> str:
    """`spelled` with what is unsafe replaced, and where that differs from `name` a digest of `name`."""
    # A name that begins with dots is hidden, or the folder itself or the one above it.
    safe = re.sub(rf"^\.+|^$|{unsafe}", "_", unicodedata.normalize("NFC", spelled).strip(" "))
    if unsafe == IN_FILES and DEVICES.match(safe):
        safe = f"_{safe}"
    if safe == name and len(safe.encode()) <= LONGEST:
        return safe
    kept = safe.encode()[: LONGEST - DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{digest(name.encode(errors='surrogatepass'), length=DIGITS)}"
