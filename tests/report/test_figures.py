import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import ImageFont

from doctogres.drawing import class_colours, contact_sheet, elide_middle, overlay
from doctogres.errors import ParameterError
from doctogres.fonts import best_font
from doctogres.report.figures import (
    class_shares_figure,
    confusion_figure,
    png_bytes,
    reliability_figure,
    risk_coverage_figure,
    training_curves_figure,
)
from doctogres.slides.images import encode_png

HOSTILE = ["$\\frac{x}$ and $", "<script>alert(1)</script>", "_^{}", "tab\tand\nline"]


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + [text.get_text() for axes in figure.axes if axes.legend_ for text in axes.legend_.get_texts()]


def history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    columns = {
        "train_loss": 1 / epoch,
        "val_loss": 1 / epoch,
        "slide_macro_f1": epoch / 100,
        "patch_macro_f1": epoch / 200,
    }
    return pd.DataFrame({"epoch": epoch, **columns, "trainable_parameters": 5000 * epoch})


def test_the_confusion_cells_hold_counts_and_row_shares() -> None:
    figure = confusion_figure(["b", "b", "b", "b", "a"], ["b", "b", "b", "a", "a"], ["b", "a"])
    assert texts(figure)[:8] == ["3", "75%", "1", "25%", "0", "0%", "1", "100%"]
    assert "4 of 5 slides correct" in texts(figure)[8]


def test_a_class_that_no_slide_has_has_no_shares() -> None:
    assert texts(confusion_figure(["a"], ["a"], ["a", "never"]))[:8] == ["1", "100%", "0", "0%", "0", "–", "0", "–"]


def test_risk_coverage_names_the_error_at_half_and_at_all() -> None:
    # the two most confident are correct, the two least confident wrong
    rows = np.array([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    found = texts(risk_coverage_figure(["a", "a", "b", "b"], rows, ["a", "b"]))
    assert "50% answered: 0.0% wrong" in found
    assert "100% answered: 50.0% wrong" in found


def test_slides_of_equal_confidence_are_kept_or_dropped_together() -> None:
    rows = np.array([[0.9, 0.1]] * 4)
    found = texts(risk_coverage_figure(["a", "b", "a", "b"], rows, ["a", "b"]))
    assert "100% answered: 50.0% wrong" in found
    assert not any(text.startswith("50% answered") for text in found)


def test_the_thresholds_place_on_the_curve_is_told() -> None:
    rows = np.array([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    for threshold, words in (
        (0.75, "threshold 0.75: 75% answered, 33.3% wrong"),
        (1.1, "threshold 1.10: no slide answered"),
    ):
        assert words in texts(risk_coverage_figure(["a", "a", "b", "b"], rows, ["a", "b"], threshold=threshold))
    assert not any("threshold" in text for text in texts(risk_coverage_figure(["a", "a", "b", "b"], rows, ["a", "b"])))


def test_the_calibration_error_is_shown_before_and_after_the_temperature() -> None:
    rows, raw = np.array([[0.75, 0.25]] * 4), np.array([[0.95, 0.05]] * 4)
    truth = ["a", "a", "a", "b"]
    assert "ECE 0.000 on 4 slides" in texts(reliability_figure(truth, rows, ["a", "b"]))
    found = texts(reliability_figure(truth, rows, ["a", "b"], raw=raw))
    assert "ECE 0.200 before, 0.000 after temperature scaling; 4 slides" in found


def test_the_best_epoch_is_told() -> None:
    curves = history(9)
    curves.loc[3, "slide_macro_f1"] = 0.9
    assert any("0.900 at epoch 4" in text for text in texts(training_curves_figure([curves])))


def test_the_curves_of_every_network_are_drawn() -> None:
    one, two = history(9), history(6)
    one.loc[3, "slide_macro_f1"], two.loc[2, "slide_macro_f1"] = 0.9, 0.7
    figure = training_curves_figure([one, two])
    assert "2 networks; best slide macro-F1 of each 0.700 to 0.900" in texts(figure)
    assert sorted(len(np.asarray(line.get_xdata())) for line in figure.axes[0].lines) == [6, 6, 9, 9]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]


def test_no_line_leads_through_a_bin_of_one_slide() -> None:
    rows = np.array([[0.65, 0.35]] * 3 + [[0.75, 0.25]] + [[0.95, 0.05]] * 4)
    figure = reliability_figure(["a"] * 8, rows, ["a", "b"])
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    assert np.asarray(drawn["this model"].get_xdata()) == pytest.approx([0.65, 0.95])
    alone = drawn["this model: one slide"]
    assert np.asarray(alone.get_xdata()) == pytest.approx([0.75])
    assert alone.get_linestyle() == "None"


@pytest.mark.parametrize("names", [HOSTILE, ["a", "b"], [f"class {index}" for index in range(12)]])
def test_every_figure_draws_whatever_the_classes_are_called(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(len(names)), 30)
    truth = [names[index] for index in rng.integers(0, len(names), 30)]
    predicted = [names[index] for index in rows.argmax(axis=1)]
    shares = pd.DataFrame({"label": names, "slides_before": range(len(names)), "slides_after": 0})
    for figure in (
        confusion_figure(truth, predicted, names),
        reliability_figure(truth, rows, names),
        risk_coverage_figure(truth[:1], rows[:1], names),
        class_shares_figure(shares),
    ):
        assert png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("epochs", [1, 50])
def test_training_curves_do_without_what_was_not_measured(epochs: int) -> None:
    curves = history(epochs).assign(val_loss=np.nan, slide_macro_f1=np.nan).drop(columns="patch_macro_f1")
    assert png_bytes(training_curves_figure([curves])).startswith(b"\x89PNG")


def test_classes_never_share_a_colour() -> None:
    for count in (1, 4, 8, 40):
        assert len(set(class_colours([str(index) for index in range(count)]).values())) == count


def test_a_class_keeps_its_colour_when_more_follow() -> None:
    assert class_colours(["x", "y"]).items() <= class_colours(["x", "y", "z"]).items()


def solid(height: int, width: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def test_a_sheet_is_as_wide_as_its_tiles() -> None:
    tiles = [solid(10, 10, (200, 0, 0))] * 5
    one_row, three_rows = (contact_sheet(tiles, ["x"] * 5, columns=columns, tile=32) for columns in (12, 2))
    assert one_row.dtype == three_rows.dtype == np.uint8
    assert one_row.shape[1] > 2 * three_rows.shape[1]
    assert three_rows.shape[0] > 2 * one_row.shape[0]


def test_a_tile_keeps_its_shape() -> None:
    sheet = contact_sheet([solid(10, 40, (200, 0, 0))], [""], tile=64)
    red = (sheet == (200, 0, 0)).all(axis=2)
    assert red.any(axis=0).sum() == 64
    assert red.any(axis=1).sum() == 16


def test_a_long_caption_does_not_widen_the_sheet_or_reach_its_neighbour() -> None:
    tiles = [solid(9, 9, (255, 255, 255))] * 2
    short, long = (contact_sheet(tiles, [caption, ""], tile=48) for caption in ("x", "x" * 10_000))
    assert long.shape == short.shape
    half = long.shape[1] // 2
    np.testing.assert_array_equal(long[:, half + 2 :], short[:, half + 2 :])


def test_the_labels_of_a_sheet_keep_the_ends_in_which_they_differ() -> None:
    tile = [solid(9, 9, (255, 255, 255))]
    name = "adenocarcinoma of the colon, differentiated {}"
    well, poorly = (contact_sheet(tile, [f"slide\n{name.format(grade)}"], tile=96) for grade in ("well", "poorly"))
    assert well.shape == poorly.shape
    assert (well != poorly).any()
    assert well.shape[0] > contact_sheet(tile, ["slide"], tile=96).shape[0]
    font = ImageFont.truetype(best_font("a"), 11)
    assert elide_middle(name.format("well"), font, 96).endswith("well")
    assert elide_middle("short", font, 96) == "short"
    assert font.getlength(elide_middle("x" * 10_000, font, 96)) <= 96


def test_no_tiles_make_a_sheet_that_can_be_saved() -> None:
    assert encode_png(contact_sheet([], [])).startswith(b"\x89PNG")


def test_tiles_without_captions_are_refused() -> None:
    with pytest.raises(ParameterError, match="2 tiles, 1 captions"):
        contact_sheet([solid(4, 4, (0, 0, 0))] * 2, ["x"])


def test_a_box_is_drawn_where_it_lies() -> None:
    blue = (0, 114, 178)
    drawn = overlay(solid(100, 200, (190, 190, 188)), np.array([[50, 20, 60, 40]]), [""], [blue], None)
    rows, columns = np.nonzero((drawn == blue).all(axis=2))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (50, 109, 20, 59)


def test_a_large_slide_is_shrunk_and_its_box_with_it() -> None:
    blue = (0, 114, 178)
    drawn = overlay(solid(1024, 6400, (190, 190, 188)), np.array([[3200, 400, 400, 200]]), [""], [blue], None)
    assert drawn.shape == (256, 1600, 3)
    rows, columns = np.nonzero((drawn == blue).all(axis=2))
    assert (columns.min(), rows.min()) == (800, 100)
    assert columns.max() in (898, 899)
    assert rows.max() in (148, 149)


def test_the_mask_is_outlined_and_the_slide_left_as_it_was() -> None:
    slide = solid(60, 60, (190, 190, 188))
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    drawn = overlay(slide, np.empty((0, 4), int), [], [], mask)
    assert (drawn[20, 20:40] == 255).all()
    assert (drawn[30, 30] == slide[30, 30]).all()
    assert (slide == (190, 190, 188)).all()


def test_labels_stay_inside_the_picture() -> None:
    boxes = np.array([[0, 0, 5, 5], [95, 0, 5, 5], [0, 95, 5, 5], [95, 95, 5, 5]])
    drawn = overlay(solid(100, 100, (0, 0, 0)), boxes, ["Triple negative 0.93"] * 4, [(255, 0, 0)] * 4, None)
    assert drawn.shape == (100, 100, 3)


@pytest.mark.parametrize("change", [{"labels": []}, {"colours": []}, {"mask": np.zeros((5, 5), bool)}])
def test_an_overlay_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"labels": ["x"], "colours": [(0, 0, 0)], "mask": None} | change
    with pytest.raises(ParameterError):
        overlay(solid(9, 9, (0, 0, 0)), np.array([[1, 1, 3, 3]]), **given)


def test_measuring_does_not_load_matplotlib() -> None:
    modules = "doctogres.evaluation, doctogres.evaluation.metrics, doctogres.drawing"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
