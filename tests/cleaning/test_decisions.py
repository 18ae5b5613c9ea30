"""Manual decisions override the automatic outcomes; those that cannot be applied are refused by name."""

import csv
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.cleaning.decisions import Decision, read_decisions
from doctogres.errors import CohortError, ParameterError
from doctogres.presets import load_preset
from doctogres.settings import CleanSettings
from doctogres.slides.reasons import Reason
from doctogres.slides.table import CohortTable
from doctogres.spreadsheets import write_csv
from doctogres.stages.clean import clean
from doctogres.tracking.runs import PROBLEMS
from doctogres.tracking.upstream import find_artifact
from entrypoints.reference import command_of
from tests.cleaning.drawn_slides import draw_tissue, write_slide


def decided(cohort, **decisions):
    given = {slide: Decision(word) for slide, word in decisions.items()}
    return clean_cohort(cohort, CleanSettings(), seed=7, decisions=given)


def rows(result):
    return result.table.set_index("slide_id")


@pytest.fixture
def write(tmp_path):
    def write(text, name="decisions.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_csv_is_read_as_people_write_it(write):
    path = write(
        b"\xef\xbb\xbfslide_id, decision ,note,reason\r\n"
        b'img_0001.png,Keep,x,"good, I looked"\r\nimg_0002,,x,undecided\r\n\r\nimg_0003,drop,x\r\nimg_0003, DROP ,x,twice\r\n'
    )
    assert read_decisions(path) == {
        "img_0001": Decision("keep", "good, I looked"),
        "img_0003": Decision("drop", "twice"),
    }


def test_a_note_and_a_name_that_are_no_formula_in_the_csv_are_read_back(write, tmp_path):
    given = {"=1+1": Decision("drop", "- blurry"), "img_0001": Decision("keep", "@ the edge, fine")}
    path = tmp_path / "decisions.csv"
    write_csv(pd.DataFrame([(slide, said.decision, said.reason) for slide, said in given.items()],
                           columns=["slide_id", "decision", "reason"]), path)  # fmt: skip
    assert path.read_text() == "slide_id,decision,reason\n'=1+1,drop,'- blurry\nimg_0001,keep,\"'@ the edge, fine\"\n"
    assert read_decisions(path) == given


def test_a_slide_may_be_called_like_a_picture(write):
    path = write("slide_id,decision\ncase1.svs,keep\ncase1,drop\ncase2.svs,keep\na  b.png,drop\n")
    given = read_decisions(path, {"case1.svs", "case1", "case2", "a  b.png"})
    said = {slide: one.decision for slide, one in given.items()}
    assert said == {"case1.svs": "keep", "case1": "drop", "case2": "keep", "a  b.png": "drop"}


def test_the_stage_takes_its_decision_about_such_a_slide(store: Path, cohort, write):
    for part in ("img", "mask"):
        (cohort / f"train_data/{part}_0007.png").rename(cohort / f"train_data/{part}_0007.svs.png")
    labels = (cohort / "train_labels.csv").read_text()
    (cohort / "train_labels.csv").write_text(labels.replace("img_0007.png", "img_0007.svs"))
    path = write("slide_id,decision\nimg_0007.svs,drop\n")
    result = clean(data=str(cohort), preset=load_preset("demo"), seed=7, decisions=str(path))
    table = CohortTable.read(find_artifact(result.run_id, stage="clean", name="cohort").path).rows.set_index("slide_id")
    assert Reason.of(str(table.loc["img_0007.svs", "reason"])) == "decision"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the column slide_id.*none.*slide_id,decision,reason"),
        ("slide_id;decision;reason\nimg_0001;keep;\n", "lacks the column slide_id.*comma-separated"),
        ("slide_id,verdict\nimg_0001,keep\n", "lacks the column decision.*slide_id, verdict"),
        ("slide_id,decision\nimg_0001,keep\nimg_0002,maybe\n", "line 3: 'maybe' for img_0002.*keep, drop, repair"),
        (
            "slide_id,decision\nimg_0001,keep\nimg_0001.png,drop\n",
            "line 3: img_0001 has the decision 'drop', but 'keep' above",
        ),
        ("slide_id,decision,reason\nimg_0001,keep,good, I think\n", "line 2 has more values.*quotes"),
        (
            "slide_id," + ",".join(f"c{n}" for n in range(999)),
            r"lacks the column decision \(it .*c3 and 995 more\); .{,90}$",
        ),
        ("slide_id,decision" + ",c" * 99_999, "has 100001 columns, more than 1000; .{,90}$"),
        ("slide_id,decision\n,drop\n", "line 2 has the decision 'drop' but no slide_id"),
        ("slide_id,decision,reason\nimg_0001,keep,ungenügend\n".encode("latin-1"), "not a readable CSV.*UTF-8"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused_with_its_line(write, text, words):
    with pytest.raises(ParameterError, match=words):
        read_decisions(write(text))


def test_decisions_override_the_outcome_and_keep_the_automatic_one_in_the_reason(cohort):
    before = rows(clean_cohort(cohort, CleanSettings(), seed=7))
    given = {
        "img_0020": Decision("keep", "for the control group"),
        "img_0022": Decision("repair"),
        "img_0007": Decision("drop", "blurred"),
        "img_0008": Decision("keep"),
    }
    result = clean_cohort(cohort, CleanSettings(), seed=7, decisions=given)
    table = rows(result)
    assert dict(table.loc[list(given), "outcome"]) == {
        "img_0020": "kept",
        "img_0022": "repaired",
        "img_0007": "dropped",
        "img_0008": "kept",
    }
    assert table.loc["img_0020", "reason"] == (
        f"decision: keep (for the control group); automatic outcome: dropped, {before.loc['img_0020', 'reason']}"
    )
    assert table.loc["img_0007", "reason"] == "decision: drop (blurred); automatic outcome: kept"
    assert table.loc["img_0020", "group"] == table.loc["img_0000", "group"]
    assert table.loc[["img_0020", "img_0022"], "fold"].notna().all()
    others = ~table.index.isin(given)
    assert table[others][["outcome", "reason"]].equals(before[others][["outcome", "reason"]])


def test_a_decision_that_is_not_possible_names_the_slide_and_what_is(cohort, slides):
    (cohort / "train_data/mask_0001.png").unlink()
    write_slide(cohort, "img_0002", slides["img_0002"][0], np.zeros_like(slides["img_0002"][1]))
    write_slide(cohort, "img_0070", *slides["img_0012"])
    (cohort / "train_data/img_0012.png").unlink()
    with (cohort / "train_labels.csv").open("a") as labels:
        labels.write("\nimg_0070.png,lonely\n")
    for slide, word, message in [
        ("img_0099", "drop", "img_0099: .*no such slide"),
        ("img_0001", "keep", "img_0001: .*cannot be used at all.*missing_mask.*drop it, or leave the decision blank"),
        ("img_0002", "repair", "img_0002: .*empty_mask"),
        ("img_0003", "repair", "img_0003: .*no splat.*keep or drop it"),
        ("img_0020", "repair", "img_0020: .*no splat"),
        ("img_0070", "keep", "img_0070: .*cannot be applied.*rare_class"),
    ]:
        with pytest.raises(CohortError, match=message):
            decided(cohort, **{slide: word})
    assert rows(decided(cohort, img_0001="drop")).loc["img_0001", "outcome"] == "dropped"


def test_near_copies_that_a_person_keeps_stay_on_one_side_of_the_split(cohort):
    rgb, mask = draw_tissue(50)
    green = rgb[..., [1, 0, 2]]
    write_slide(cohort, "img_0040", green, mask)
    write_slide(cohort, "img_0041", np.ascontiguousarray(green[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    with (cohort / "train_labels.csv").open("a") as labels:
        labels.write("\nimg_0040.png,a\nimg_0041.png,a")
    assert set(rows(decided(cohort)).loc[["img_0040", "img_0041"], "reason"].map(Reason.of)) == {"cartoon"}
    table = rows(decided(cohort, img_0040="keep", img_0041="keep"))
    assert table.loc["img_0040", "group"] == table.loc["img_0041", "group"]


def test_the_csv_that_cleaning_leaves_is_the_one_it_takes(cohort, write, tmp_path):
    first = clean_cohort(cohort, CleanSettings(), seed=7)
    path = tmp_path / "decisions.csv"
    first.decisions.to_csv(path, index=False)
    assert read_decisions(path) == {}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["slide_id"] for line in lines] == ["img_0020", "img_0021", "img_0022", "img_0023"]
    assert [line["possible"] for line in lines] == ["keep drop"] * 2 + ["keep drop repair"] * 2
    assert (lines[0]["automatic_outcome"], lines[0]["twin_of"]) == ("dropped", "img_0000")
    assert Reason.of(lines[0]["automatic_reason"]) == "cartoon_twin"
    lines[0] |= {"decision": "keep", "reason": "a hand-made\nstain, real"}
    pd.DataFrame(lines).to_csv(path, index=False)

    second = clean_cohort(cohort, CleanSettings(), seed=7, decisions=read_decisions(path))
    assert rows(second).loc["img_0020", "outcome"] == "kept"
    assert [second.decisions[name][0] for name in ("decision", "reason")] == ["keep", "a hand-made stain, real"]
    automatic = ["slide_id", "automatic_outcome", "automatic_reason", "possible"]
    assert second.decisions[automatic].equals(first.decisions[automatic])
    second.decisions.to_csv(path, index=False)
    third = clean_cohort(cohort, CleanSettings(), seed=7, decisions=read_decisions(path))
    assert third.table.equals(second.table)
    assert third.audit_html == second.audit_html


def test_the_stage_logs_the_decisions_and_knows_them_by_their_content(store: Path, cohort, write, monkeypatch):
    (cohort / "train_data/mask_0001.png").unlink()
    stage: dict[str, Any] = {"data": str(cohort), "preset": load_preset("demo"), "seed": 1}
    text = "slide_id,decision,reason\nimg_0001,drop,lost\nimg_0020,keep,\nimg_0021,drop,\n"
    plain = clean(**stage)
    first = clean(**stage, decisions=str(write(text)), strict=True)
    again = clean(**stage, decisions=str(write(text, "renamed.csv")))
    assert (again.run_id, again.reused) == (first.run_id, True)
    assert (plain.metrics[PROBLEMS], first.metrics[PROBLEMS]) == (1, 0)
    assert (first.metrics["decisions/given"], first.metrics["decisions/changed"]) == (3, 1)
    assert first.metrics["twins/mask_groups"] == 2
    assert first.metrics["twins/near_copy_clusters"] == 2
    given = mlflow.artifacts.load_text(f"runs:/{first.run_id}/decisions_given.csv")
    assert given == text
    twins = pd.read_csv(find_artifact(f"runs:/{first.run_id}", stage="clean", name="twin_groups").path)
    assert set(twins["kind"]) == {"mask", "near-copy"}
    members = twins[twins["kind"] == "mask"].groupby("group")["slide_id"].agg(list)
    assert sorted(members) == [["img_0000", "img_0020"], ["img_0003", "img_0021"]]

    edited = find_artifact(f"runs:/{first.run_id}", stage="clean", name="decisions").path
    third = clean(**stage, decisions=str(edited))
    assert third.run_id != first.run_id
    tables = [
        CohortTable.read(find_artifact(run.run_id, stage="clean", name="cohort").path).rows for run in (first, third)
    ]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("entry_point", ["clean", "main", "ablate"])
def test_a_missing_file_of_decisions_is_one_line(store: Path, cohort, entry_point, capsys):
    with pytest.raises(SystemExit) as stop:
        command_of(entry_point).main(["--data", str(cohort), "--decisions", "nowhere.csv"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{entry_point}: error: decisions=nowhere.csv cannot be")
