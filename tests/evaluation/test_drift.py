"""Drawn streams of answers: clean ones raise no alarm, shifted ones do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from doctogres.evaluation.drift import LARGE, REFUSALS, centred, compare, daily, distinct, holm, missing
from doctogres.serving.answers import as_line, read_answers

CLASSES = np.array(["a", "b", "c", "d"])
SHARES = (0.4, 0.3, 0.2, 0.1)
ALPHA = 0.05


def drawn(random: np.random.Generator, slides: int, shares: Any = SHARES) -> pd.DataFrame:
    """Rows of the answer log whose hue lies around red and depends on the class, as everything does a little."""
    label = random.choice(4, slides, p=shares)
    return pd.DataFrame({
        "time": pd.date_range("2026-11-01", periods=slides, freq="h", tz="UTC"),
        "image_sha256": [f"{number:032x}" for number in random.integers(0, 2**60, slides)],
        "mask_sha256": [f"{number:032x}" for number in random.integers(0, 2**60, slides)],
        "label": CLASSES[label],
        "abstained": random.random(slides) < 0.2,
        "confidence": random.beta(6 + label, 2),
        "novelty": random.lognormal(-0.5, 0.2, slides),
        "mask_source": "given",
        "hue": (random.normal(358 + label, 5, slides)) % 360,
        "saturation": random.normal(0.3, 0.04, slides),
        "stain_share": random.beta(20, 2, slides),
        "glass": random.normal(240, 3, slides),
        "inside_share": random.beta(6, 4, slides),
        "width": random.integers(900, 1400, slides),
        "height": random.integers(900, 1400, slides),
        "mask_share": random.beta(2, 20, slides),
        "n_patches": random.poisson(4, slides) + 1,
        "patch_side": random.lognormal(4, 0.3, slides),
    })  # fmt: skip


def other_scanner(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(hue=(rows["hue"] + 6) % 360)


def other_classes(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return drawn(random, len(rows), (0.1, 0.2, 0.3, 0.4))


def inverted(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(mask_share=1 - rows["mask_share"])


def other_organ(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(novelty=rows["novelty"] * 1.3)


def refused(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(label=rows["label"].where(random.random(len(rows)) > 0.2))


def alarms(reference: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    shifts = compare(reference, rows, alpha=ALPHA)
    return [shift.quantity.name for shift in shifts if shift.alarm]


def test_clean_periods_raise_no_alarm() -> None:
    raised = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        raised += bool(alarms(drawn(random, 120), drawn(random, 200)))
    assert raised <= 3


@pytest.mark.parametrize(
    ("shift", "quantity"),
    [
        (other_scanner, "hue"),
        (other_classes, "label"),
        (inverted, "mask_share"),
        (other_organ, "novelty"),
        (refused, "unanswered_share"),
    ],
)
def test_a_shift_is_found_within_200_slides(shift: Callable[..., pd.DataFrame], quantity: str) -> None:
    for seed in range(10):
        random = np.random.default_rng(seed)
        reference = drawn(random, 120)
        assert quantity in alarms(reference, shift(drawn(random, 200), random))


def test_a_small_shift_of_many_slides_is_significant_and_no_alarm() -> None:
    random = np.random.default_rng(0)
    reference, rows = drawn(random, 20_000), drawn(random, 20_000)
    shifts = {s.quantity.name: s for s in compare(reference, rows.assign(glass=rows["glass"] + 0.5), alpha=ALPHA)}
    assert shifts["glass"].adjusted < 1e-6
    assert 0.03 < shifts["glass"].effect < LARGE
    assert not any(shift.alarm for shift in shifts.values())


def test_the_sentence_says_what_from_what_to_what_in_how_many_slides_and_what_to_do() -> None:
    random = np.random.default_rng(0)
    reference = drawn(random, 120)
    rows = drawn(random, 200).assign(glass=200.0, label="d")
    found = {s.quantity.name: s for s in compare(reference, rows, alpha=ALPHA)}
    sentence = found["glass"].sentence
    assert sentence.startswith("brightness of the glass: from 240 (238 to 242) to 200 (200 to 200) in 200 slides")
    assert "(shift 100%, p < 0.001); look whether scanner" in sentence
    share = (reference["label"] == "d").mean()
    assert f"predicted classes: from d {share:.0%} to d 100% in 200 slides" in found["label"].sentence


def test_repeated_slides_count_once_and_requests_without_files_each() -> None:
    rows = drawn(np.random.default_rng(0), 10)
    again = rows.assign(label="z")
    nothing = rows.assign(image_sha256=None, mask_sha256=None, label=None)
    found = distinct(pd.concat([rows, again, nothing], ignore_index=True))
    assert found["label"].isna().sum() == 10
    assert found["label"].dropna().tolist() == ["z"] * 10
    other_mask = rows.assign(mask_sha256="other")
    assert len(distinct(pd.concat([rows, other_mask], ignore_index=True))) == 20


def test_slides_without_a_mask_say_nothing_about_masks() -> None:
    random = np.random.default_rng(0)
    reference, rows = drawn(random, 120), drawn(random, 200)
    tiled = drawn(random, 100).assign(mask_source="tissue", mask_share=np.nan, n_patches=100, patch_side=500.0)
    assert not {"n_patches", "patch_side", "mask_share"} & set(alarms(reference, pd.concat([rows, tiled])))
    counted = {s.quantity.name: s.slides for s in compare(reference, pd.concat([rows, tiled]), alpha=ALPHA)}
    assert (counted["n_patches"], counted["hue"]) == (200, 300)


def test_what_a_model_lacks_is_named_and_a_period_without_answers_is_still_judged() -> None:
    random = np.random.default_rng(0)
    reference = drawn(random, 120).drop(columns="novelty")
    assert missing(reference) == ["novelty"]
    rows = drawn(random, 50).assign(label=None)
    assert [shift.quantity for shift in compare(reference, rows, alpha=ALPHA) if shift.alarm] == [REFUSALS]


def test_refused_slides_of_a_log_have_no_figures_and_do_not_hinder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    reference, rows = drawn(random, 120), drawn(random, 200)
    lines = [
        as_line({str(name): value for name, value in row.items()})
        for row in rows.astype({"time": str}).to_dict("records")
    ]
    for place in range(0, 200, 4):
        lines[place] = as_line({"time": str(rows.loc[place, "time"]), "refusal": "unreadable_image"})
    (tmp_path / "answers-1.jsonl").write_text("".join(lines))
    period = distinct(read_answers(tmp_path))
    assert len(period) == 200
    assert alarms(reference, period) == ["unanswered_share"]
    assert [values["slides"] for _, values in daily(period)] == [24] * 8 + [8]


def test_holm_is_monotone_and_stricter_than_the_false_discovery_rate() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.6]
    assert holm(p_values) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.6])
    assert (np.array(holm(p_values)) >= false_discovery_control(p_values) - 1e-12).all()


def test_hues_around_red_are_neighbours() -> None:
    np.testing.assert_allclose(np.sort(centred(np.array([359.0, 1.0]), np.array([358.0, 2.0]))) % 360, [359, 1])
    assert np.ptp(centred(np.array([359.0, 1.0]), np.array([358.0, 2.0]))) == pytest.approx(2)


def test_the_hue_in_a_sentence_lies_within_the_circle() -> None:
    random = np.random.default_rng(0)
    reference = drawn(random, 120).assign(hue=[359.0, 1.0] * 60)
    (shift,) = [
        s for s in compare(reference, drawn(random, 200).assign(hue=5.0), alpha=ALPHA) if s.quantity.name == "hue"
    ]
    assert (shift.before, shift.after) == ("0 (359 to 1)", "5 (5 to 5)")


def test_every_day_has_its_numbers() -> None:
    rows = drawn(np.random.default_rng(0), 48)
    rows.loc[30:, "label"] = None
    first, second = [values for _, values in daily(rows)]
    assert (first["slides"], first["unanswered_share"]) == (24, 0)
    assert second["unanswered_share"] == pytest.approx(18 / 24)
    assert first["glass"] == pytest.approx(rows["glass"][:24].median())
    assert [values["hue"] for _, values in daily(rows[:4].assign(hue=[358.0, 359.0, 3.0, 3.0]))] == [pytest.approx(1)]
    assert sum(value for name, value in first.items() if name.startswith("label/")) == pytest.approx(1)
