"""Fonts that have the letters of a text: classes and slides are named in every alphabet.

matplotlib's own font, DejaVu Sans, has Latin, Greek, Cyrillic, Arabic and Hebrew letters, and no Chinese, Japanese,
Korean, Thai or Indian ones. Those are looked for among the fonts that are installed.
"""

import logging
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

EAST_ASIAN: Final = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH")  # how their names begin
PLACEHOLDERS: Final = ("lastresort", "blank", "notdef")  # fonts of boxes, which have every letter
DECORATED: Final = ("bold", "italic", "oblique", "light", "thin", "mono", "serif", "black")


def font_files(texts: Iterable[str]) -> list[Path]:
    """Files of fonts that together have the letters of the texts, DejaVu Sans first.

    Where no installed font has a letter, one warning says so and which package to install; it is drawn as a box.
    """
    first = _dejavu()
    wanted = {ord(letter) for text in texts for letter in text if letter.isprintable() and not letter.isspace()}
    return [first, *_further(frozenset(wanted - _letters(first)))]


def best_font(text: str) -> Path:
    """The file of the one font that has most of the text's letters."""
    wanted = set(map(ord, text))
    return max(font_files([text]), key=lambda path: len(wanted & _letters(path)))


def missing_letters(text: str) -> str:
    """The letters of a text that no installed font has."""
    left = {ord(letter) for letter in text if not letter.isspace()}
    for path in _installed():
        left -= _letters(path)
    return "".join(letter for letter in text if ord(letter) in left)


def families(texts: Iterable[str]) -> list[str]:
    """The names of `font_files`, for matplotlib, which takes each letter from the first font that has it."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    files = font_files(texts)
    known = {entry.fname for entry in fontManager.ttflist}
    for path in files:
        if str(path) not in known:
            fontManager.addfont(path)
    return [FT2Font(path).family_name for path in files]


@cache
def _dejavu() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache
def _further(wanted: frozenset[int]) -> tuple[Path, ...]:
    """Installed fonts with these letters, each time the one that has most of those that are still missing."""
    chosen: list[Path] = []
    left = set(wanted)
    while left:
        best = max(_installed(), key=lambda path: len(left & _letters(path)), default=None)
        if best is None or not left & _letters(best):
            _warn(_package(left))
            break
        chosen.append(best)
        left -= _letters(best)
    return tuple(chosen)


def _installed() -> list[Path]:
    """The installed fonts, plain ones first. matplotlib's own list is as old as its cache, so the system is asked."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    found = {Path(name) for name in (*findSystemFonts(), *(entry.fname for entry in fontManager.ttflist))}
    real = [path for path in found if not any(word in path.stem.lower() for word in PLACEHOLDERS)]
    return sorted(real, key=lambda path: (sum(word in path.stem.lower() for word in DECORATED), path.name))


@cache
def _letters(path: Path) -> frozenset[int]:
    """The code points that a font has; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # damaged, or of a kind that FreeType does not read
        return frozenset()


def _package(letters: set[int]) -> str:
    asian = any(unicodedata.name(chr(one), "").startswith(EAST_ASIAN) for one in letters)
    return "fonts-noto-cjk" if asian else "fonts-noto-core"


@cache
def _warn(package: str) -> None:
    """Says it once in a process."""
    written = "Chinese, Japanese or Korean" if package == "fonts-noto-cjk" else "some"
    logging.getLogger(__name__).warning(
        f"no installed font has {written} letters that names of classes or slides are written in: figures and overlays show "
        f"boxes instead. Install one, for example the package {package} of Debian and Ubuntu, and repeat the stage with rerun=true"
    )
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")  # matplotlib's, for every letter
