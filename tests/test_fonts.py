"""Names in every alphabet are drawn where a font has the letters, and said to be missing where none has."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from doctogres import fonts
from doctogres.drawing import contact_sheet
from doctogres.report.figures import class_shares_figure, confusion_figure, png_bytes

CANCER = "\u764c"  # a Chinese letter that DejaVu Sans lacks


def made_font(path: Path, name: str, letters: str) -> Path:
    """A font in which each of these letters is a full square."""
    pen = TTGlyphPen(None)
    for step, corner in enumerate([(50, 0), (50, 900), (950, 900), (950, 0)]):
        (pen.lineTo if step else pen.moveTo)(corner)
    pen.closePath()
    square, glyphs = pen.glyph(), [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap({ord(letter): glyph for letter, glyph in zip(letters, glyphs[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(glyphs, square))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files of the fonts that are installed besides matplotlib's own: none, until a test adds some."""
    found: list[str] = []
    own = str(Path(matplotlib.get_data_path()))
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.fname.startswith(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    with warnings.catch_warnings():
        for forgetful in (fonts._further, fonts._warn):
            forgetful.cache_clear()
        yield found
        for forgetful in (fonts._further, fonts._warn):
            forgetful.cache_clear()


def drawn(figure: Figure) -> np.ndarray:
    figure.draw_without_rendering()
    return np.frombuffer(png_bytes(figure), np.uint8)


@pytest.mark.parametrize("name", ["Luminal A", "рак молочной железы", "καρκίνος", "سرطان", "ä ß €", "HER2(+)"])
def test_what_dejavu_has_needs_no_other_font(installed: list[str], name: str) -> None:
    assert [path.stem for path in fonts.font_files([name])] == ["DejaVuSans"]


def test_a_font_that_has_the_letters_is_found_and_drawn_with(
    installed: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"Luminal {CANCER}"
    shares = pd.DataFrame({"label": [name], "slides_before": [2], "slides_after": [1]})
    figures = (lambda: confusion_figure([name], [name], [name]), lambda: class_shares_figure(shares))
    boxed = [drawn(make()).tobytes() for make in figures]
    fonts._further.cache_clear()
    path = made_font(tmp_path / "squares.ttf", "Squares", CANCER)
    installed.append(str(path))
    assert fonts.families([name]) == ["DejaVu Sans", "Squares"]
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(drawn(make()).tobytes() != box for make, box in zip(figures, boxed, strict=True))
    assert caplog.records == []
    tile = np.full((100, 100, 3), 255, np.uint8)
    sheet = contact_sheet([tile], [CANCER * 2], tile=100)
    assert fonts.best_font(CANCER) == path
    assert (sheet[108:] < 128).sum() > 3 * 12 * 12  # two filled squares; a missing letter is an empty frame


def test_a_letter_that_no_font_has_is_one_warning_that_names_the_package(
    installed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = [CANCER, CANCER * 2]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert png_bytes(confusion_figure(names, names, names)).startswith(b"\x89PNG")
            contact_sheet([np.zeros((9, 9, 3), np.uint8)], [CANCER])
    (record,) = caplog.records
    assert "fonts-noto-cjk" in record.getMessage()
    caplog.clear()
    fonts.font_files(["\u0e01"])  # Thai
    (record,) = caplog.records
    assert "fonts-noto-core" in record.getMessage()


def test_a_font_file_that_cannot_be_read_is_passed_over(installed: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed += [str(tmp_path / "broken.ttf"), str(made_font(tmp_path / "good.ttf", "Good", CANCER))]
    assert [path.stem for path in fonts.font_files([CANCER])] == ["DejaVuSans", "good"]
