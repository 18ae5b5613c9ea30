from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.ladder import ScoredRow, ladder_table, verdict
from doctogres.evaluation.predictions import Predictions
from doctogres.report.figures import png_bytes
from doctogres.report.ladder import ladder_figure, ladder_markdown

CLASSES = ["b", "a", "c"]
SLIDES = 240
NULL = {"majority/macro_f1": Estimate(0.167, 0.15, 0.18), "chance/macro_f1": Estimate(0.331, 0.28, 0.39)}


def answered(wrong: range, seed: int = 0) -> Predictions:
    """Predictions, sure of themselves, that are wrong about some of the slides, and a few more by the seed."""
    truth = np.arange(SLIDES) % 3
    said = truth.copy()
    said[wrong] = (truth[wrong] + 1) % 3
    said[-1 - seed] = (truth[-1 - seed] + 1) % 3
    table = pd.DataFrame({"slide_id": [f"slide {number:03d}" for number in range(SLIDES)]})
    table["label"] = [CLASSES[one] for one in truth]
    table["group"] = [f"patient {number // 2}" for number in range(SLIDES)]
    table["predicted"] = [CLASSES[one] for one in said]
    return Predictions(table, tuple(CLASSES), 0.1 + 0.7 * np.eye(3)[said])


def row(name: str, wrong: range) -> ScoredRow:
    tables = [answered(wrong, seed) for seed in range(3)]
    return ScoredRow(name, tables, f"{name}=1", 90.0, [f"{name} {seed}" for seed in range(3)])


def changed(predictions: Predictions, **columns: Any) -> Predictions:
    return replace(predictions, rows=predictions.rows.assign(**columns))


@pytest.fixture(scope="module")
def rows() -> list[ScoredRow]:
    """Steps that plainly help, do nothing that can be shown, plainly hurt, and change nothing."""
    planted = [row("first", range(120)), row("better", range(60)), row("other", range(1, 61)), row("worse", range(130))]
    return [*planted, replace(planted[-1], name="again", changes="nothing")]


@pytest.fixture(scope="module")
def table(rows: list[ScoredRow]) -> pd.DataFrame:
    return ladder_table(rows, CLASSES, resamples=500, seed=1)


def test_the_numbers_are_scikit_learns_and_the_differences_those_of_neighbours(
    rows: list[ScoredRow], table: pd.DataFrame
) -> None:
    for number, scored in enumerate(rows):
        by_seed = [f1_score(one.rows["label"], one.rows["predicted"], average="macro") for one in scored.predictions]
        line = table.iloc[number]
        assert line["macro_f1"] == pytest.approx(np.mean(by_seed))
        assert (line["lowest_seed"], line["highest_seed"]) == pytest.approx((min(by_seed), max(by_seed)))
        assert [float(score) for score in line["by_seed"].split()] == pytest.approx(by_seed, abs=1e-6)
        if number:
            assert line["difference"] == pytest.approx(line["macro_f1"] - table.loc[number - 1, "macro_f1"])
    assert table.loc[0, ["difference", "difference_low", "difference_high"]].isna().all()


def test_the_intervals_are_those_of_the_paired_comparison_of_whole_patients(
    rows: list[ScoredRow], table: pd.DataFrame
) -> None:
    models = {scored.name: [one.probabilities for one in scored.predictions] for scored in rows}
    names = list(models)
    first = rows[0].predictions[0].rows
    found = compare(
        first["label"].tolist(),
        models,
        CLASSES,
        against=dict(zip(names[1:], names, strict=False)),
        groups=first["group"].tolist(),
        resamples=500,
        seed=1,
    )
    for line in table.itertuples():
        assert (line.low, line.high) == (found.values[str(line.row)].low, found.values[str(line.row)].high)
        if line.verdict:
            difference = found.differences[str(line.row)]
            assert (line.difference_low, line.difference_high) == (difference.low, difference.high)


def test_the_verdict_says_what_the_interval_shows(table: pd.DataFrame) -> None:
    assert table["verdict"].tolist() == ["", "helps", "not shown", "hurts", "same recipe"]
    assert verdict(Estimate(0.1, 0.0, 0.2)) == "not shown"  # touching zero is not excluding it
    assert verdict(Estimate(0.1, np.nan, np.nan)) == "not shown"


def test_rows_are_aligned_by_slide_and_class_not_by_place(rows: list[ScoredRow], table: pd.DataFrame) -> None:
    order = np.random.default_rng(0).permutation(SLIDES)
    mixed = [
        Predictions(one.rows.iloc[order], ("c", "b", "a"), one.probabilities[order][:, [2, 0, 1]])
        for one in rows[1].predictions
    ]
    again = ladder_table([rows[0], replace(rows[1], predictions=mixed), *rows[2:]], CLASSES, resamples=500, seed=1)
    pd.testing.assert_frame_equal(again, table)


def test_a_class_that_a_row_does_not_know_is_never_its_answer(rows: list[ScoredRow]) -> None:
    two = []
    for one in rows[1].predictions:
        shares = one.probabilities[:, :2]
        two.append(Predictions(one.rows, ("b", "a"), shares / shares.sum(1, keepdims=True)))
    found = ladder_table([rows[0], replace(rows[1], predictions=two)], CLASSES, resamples=200, seed=1)
    said = [np.where(one.probabilities[:, 0] >= one.probabilities[:, 1], "b", "a") for one in two]
    expected = [f1_score(one.rows["label"], answers, average="macro") for one, answers in zip(two, said, strict=True)]
    assert found.loc[1, "macro_f1"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("change", ["fewer slides", "other labels"])
def test_a_row_that_was_scored_on_something_else_is_refused_by_name(rows: list[ScoredRow], change: str) -> None:
    one = rows[1].predictions[0]
    fewer = Predictions(one.rows.iloc[1:], one.classes, one.probabilities[1:])
    other = fewer if change == "fewer slides" else changed(one, label=np.roll(one.rows["label"], 1))
    with pytest.raises(ParameterError, match="better: its .* evaluated slides"):
        ladder_table([rows[0], replace(rows[1], predictions=[other])], CLASSES, resamples=200, seed=1)


def test_the_markdown_says_it_all_in_order(table: pd.DataFrame) -> None:
    text = ladder_markdown(table, NULL, SLIDES)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]
    assert [cells[1] for cells in lines] == [
        "first",
        "better (`better=1`)",
        "other (`other=1`)",
        "worse (`worse=1`)",
        "again",
    ]
    assert [cells[5] for cells in lines] == table["verdict"].tolist()
    assert lines[0][4] == ""
    assert lines[4][4] == "+0.000 [+0.000, +0.000]"
    assert lines[1][2] == str(Estimate(*table.loc[1, ["macro_f1", "low", "high"]]))
    assert {cells[6] for cells in lines} == {"1.5"}
    assert "always predicting the most frequent class: 0.167 [0.150, 0.180]" in text
    assert "random guessing by class frequency: 0.331 [0.280, 0.390]" in text
    assert f"{SLIDES} hold-out slides" in text
    assert "mean over 3 seeds" in text


def test_one_seed_is_said_to_compare_networks_not_recipes(rows: list[ScoredRow]) -> None:
    single = [replace(one, predictions=one.predictions[:1]) for one in rows]
    found = ladder_table(single, CLASSES, resamples=200, seed=1)
    assert "between two networks, not between two recipes" in ladder_markdown(found, NULL, SLIDES)


def test_the_figure_names_rows_and_verdicts_and_marks_every_seed(table: pd.DataFrame) -> None:
    figure = ladder_figure(table, NULL)
    scores, steps = figure.axes
    figure.draw_without_rendering()
    assert [text.get_text() for text in scores.get_yticklabels()] == [
        f"{number}  {name}" for number, name in enumerate(table["row"], 1)
    ]
    (words,) = steps.child_axes
    assert [text.get_text() for text in words.get_yticklabels()] == table["verdict"].tolist()
    drawn = [np.asarray(line.get_xdata()) for line in scores.lines]
    dots = [tuple(values) for values in drawn if len(values) == 3]
    assert dots == [tuple(float(score) for score in scores) for scores in table["by_seed"].str.split()]


def test_the_figure_is_drawn_without_any_interval(rows: list[ScoredRow]) -> None:
    one_patient = [
        replace(scored, predictions=[changed(one, group="p") for one in scored.predictions]) for scored in rows
    ]
    found = ladder_table(one_patient, CLASSES, resamples=200, seed=1)
    assert found["verdict"].tolist() == ["", "not shown", "not shown", "not shown", "same recipe"]
    assert png_bytes(ladder_figure(found, NULL)).startswith(b"\x89PNG")
