"""The stage that looks at folders."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from doctogres.errors import DoctogresError, ParameterError
from doctogres.remote import local, send
from doctogres.stages.init import init


def test_it_says_what_it_found_and_writes_the_table(
    store: Path, small_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = init(data=str(small_cohort), output=str(tmp_path / "cohort.csv"))
    table = pd.read_csv(tmp_path / "cohort.csv")
    assert len(table) == result.metrics["slides"]
    assert {"slide_id", "image", "mask", "label", "part"} <= set(table.columns)
    assert all(Path(path).is_file() for path in [*table["image"], *table["mask"]])
    printed = capsys.readouterr().out
    assert "init: slides   " in printed
    assert f"data={tmp_path / 'cohort.csv'}" in printed
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("place", ["out/cohort.csv", "memory://bucket/cohort.csv"])
def test_a_table_that_was_corrected_is_not_replaced(
    in_memory: Any, store: Path, small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    init(data=str(small_cohort), output=place)
    init(data=str(small_cohort), output=place)  # the same table again
    corrected = local(place).read_text().replace(",train", ",test", 1)
    (tmp_path / "corrected.csv").write_text(corrected)
    send(tmp_path / "corrected.csv", place)
    with pytest.raises(ParameterError, match=f"output={place}: .*move it away"):
        init(data=str(small_cohort), output=place)
    assert local(place).read_text() == corrected
    assert init(data=str(small_cohort), output="").metrics["slides"] > 0  # nothing is written


def test_strict_ends_with_an_error_where_something_is_to_be_fixed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DoctogresError):
        init(data=str(tmp_path), output="", strict=True)
    assert init(data=str(tmp_path), output="").metrics["problem_slides"] == 2


def test_what_is_no_folder_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(
        DoctogresError, match="init looks at folders; give the folder .*unpack a zip.*cohort.csv to `clean`"
    ):
        init(data=str(tmp_path / "a.csv"))
