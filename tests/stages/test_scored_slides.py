"""Which slides an evaluation scores, and at which scale."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from doctogres.errors import ParameterError
from doctogres.slides.subgroups import AUTO
from doctogres.stages.scored_slides import scored_slides

OTHERS = {"data": "", "ignore_columns": "", "subgroups": AUTO, "annotations": ""}


def test_a_given_scale_is_that_of_slides_whose_files_say_none(small_cohort: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_cohort, tmp_path / "outside")
    unstated = scored_slides(str(folder), "", **OTHERS)
    assert unstated.slides["mpp"].isna().all()
    first = folder / unstated.slides["image"][0]
    with Image.open(first) as picture:
        picture.copy().save(first, dpi=(25400 / 0.25, 25400 / 0.25))
    given = scored_slides(str(folder), "", **OTHERS, mpp="0.5")
    assert given.slides["mpp"].tolist() == pytest.approx([0.25] + [0.5] * (len(given.slides) - 1), rel=0.01)
    assert given.inputs != scored_slides(str(folder), "", **OTHERS, mpp="0.6").inputs
    with pytest.raises(ParameterError, match="mpp=half"):
        scored_slides(str(folder), "", **OTHERS, mpp="half")
