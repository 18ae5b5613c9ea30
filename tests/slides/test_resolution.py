"""Microns per pixel as files, tables and parameters say them."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from doctogres.errors import CohortError, ParameterError
from doctogres.slides.cohort import find_slides
from doctogres.slides.images import encode_png
from doctogres.slides.masks import read_with_mask
from doctogres.slides.opening import open_slide
from doctogres.slides.pyramid import Pyramid
from doctogres.slides.resolution import parsed_mpp, stated_mpp
from tests.slides.hostile_files import chunk
from tests.slides.pyramids import tissue, write_pyramid, write_svs

RGB = tissue(300, 200)


def png(**options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", **options)
    return file.getvalue()


def tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, RGB, photometric="rgb", **({"metadata": None} | options))
    return file.getvalue()


def phys(across: int, down: int, unit: int) -> bytes:
    plain = png()
    return plain[:33] + chunk(b"pHYs", struct.pack(">IIB", across, down, unit)) + plain[33:]  # after the header


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{x}" PhysicalSizeYUnit="{unit}"/></Image></OME>'
)
FILES = {
    "a PNG of 4 pixels per micron": (phys(4_000_000, 4_000_000, 1), 0.25),
    "a PNG for printing": (png(dpi=(300, 300)), None),
    "a PNG of a ratio only": (phys(4_000_000, 4_000_000, 0), None),
    "a PNG of unequal sides": (phys(4_000_000, 2_000_000, 1), None),
    "a PNG that says zero": (phys(0, 0, 1), None),
    "a plain PNG": (png(), None),
    "a TIFF in centimetres": (tiff(resolution=(20_000, 20_000), resolutionunit="CENTIMETER"), 0.5),
    "a TIFF in inches": (tiff(resolution=(50_800, 50_800), resolutionunit="INCH"), 0.5),
    "a TIFF for printing": (tiff(resolution=(72, 72), resolutionunit="INCH"), None),
    "a TIFF without a unit": (tiff(resolution=(2, 2), resolutionunit="NONE"), None),
    "a TIFF of ImageJ": (
        tiff(resolution=(2, 2), resolutionunit="NONE", description="ImageJ=1.54f\nimages=1\nunit=micron\n"), 0.5,
    ),
    "a TIFF of OME": (tiff(description=OME.format(x=0.345, unit="µm").encode()), 0.345),
    "a TIFF of OME in nanometres": (tiff(description=OME.format(x=0.345, unit="nm").encode()), None),
    "a TIFF that says nothing sensible": (tiff(description=OME.format(x="1e", unit="µm").encode()), None),
    "a plain TIFF": (tiff(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_states_is_believed_if_a_microscope_may_have_it(name: str) -> None:
    content, expected = FILES[name]
    assert stated_mpp(content) == (None if expected is None else pytest.approx(expected))
    assert open_slide(content, name="a").mpp == stated_mpp(content)
    mask = encode_png(np.ones(RGB.shape[:2], bool))
    assert read_with_mask(content, mask, name="a", mask_name="m").picture.mpp == stated_mpp(content)


def test_a_pyramid_has_the_scanners_microns_per_pixel(tmp_path: Path) -> None:
    assert Pyramid.open(write_svs(tmp_path / "a.svs", RGB, mpp=0.4990), "a").mpp == pytest.approx(0.499)
    assert Pyramid.open(write_pyramid(tmp_path / "a.tif", RGB, mpp=0.25), "a").mpp == pytest.approx(0.25)
    assert Pyramid.open(write_pyramid(tmp_path / "b.tif", RGB), "b").mpp is None


def test_microns_per_pixel_can_be_stated() -> None:
    slide = open_slide(FILES["a TIFF in inches"][0])
    assert slide.at(0.2).mpp == slide.at(0.2).unless_known(0.3).mpp == 0.2
    assert slide.unless_known(0.3).mpp == slide.at(None).mpp == pytest.approx(0.5)
    assert open_slide(png()).unless_known(0.3).mpp == 0.3
    assert open_slide(png()).unless_known(None).mpp is None


def test_the_parameter_is_checked() -> None:
    assert (parsed_mpp(""), parsed_mpp("0.25")) == (None, 0.25)
    for text in ("0", "-1", "40x", "85", "nan", "inf"):
        with pytest.raises(ParameterError, match=f"mpp={text}: give microns per pixel, 0.02 to 20, or nothing"):
            parsed_mpp(text)


def table(root: Path, *rows: str) -> Path:
    (root / "train_data").mkdir(parents=True, exist_ok=True)
    for name in ("img_0000", "mask_0000", "img_0001", "mask_0001"):
        (root / f"train_data/{name}.png").write_bytes(b"x")
    (root / "train_labels.csv").write_text("\n".join(rows))
    return root


def test_the_column_mpp_is_read(tmp_path: Path) -> None:
    found = find_slides(table(tmp_path, "sample_index,label,MPP", "0,a,0.25", "1,b,"))
    assert found["mpp"].tolist() == [0.25, None]
    with pytest.raises(
        CohortError, match=r"train_labels.csv, line 3 .* has the mpp '40x'; enter microns per pixel, 0.02 to 20"
    ):
        find_slides(table(tmp_path, "sample_index,label,mpp", "0,a,0.25", "1,b,40x"))
