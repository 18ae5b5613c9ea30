"""What the answer log says of a slide besides its answer and the figures of its picture."""

import hashlib
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def digests(image: bytes, mask: bytes | None) -> dict[str, str | None]:
    """The SHA-256 of the two files."""
    return {
        "image_sha256": hashlib.sha256(image).hexdigest(),
        "mask_sha256": None if mask is None else hashlib.sha256(mask).hexdigest(),
    }


def median_side(patches: Sequence[Mapping[str, Any]]) -> float | None:
    """The median longer side of the patches of an answer in pixels."""
    return float(median(max(patch["width"], patch["height"]) for patch in patches)) if patches else None
