"""How texts of a table are compared: what nobody can see is removed, what only looks the same is found."""

import re
import unicodedata
from typing import Final

# What no label is meant by. Somebody whose class is called "none" writes it out: "no lesion".
BLANKS: Final = frozenset({
    "", "-", "--", "---", "–", "—", ".", "?", "??", "???", "nan", "nat", "na", "n/a", "n.a.", "<na>", "#na", "#n/a", "none",
    "null", "unknown", "undefined", "missing", "not available", "not applicable", "tbd", "unlabelled", "unlabeled", "blank",
    "(blank)", "empty", "#ref!", "#value!", "#name?",
})  # fmt: skip
# Fillers and selectors that Unicode does not class as format characters.
FILLERS: Final = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))
# Cyrillic and Greek capitals and small letters that are drawn as these Latin ones.
LOOKALIKES: Final = str.maketrans("АВЕКМНОРСТХаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEKMHOPCTXaeopcyxijsABEZHIKMNOPTYXo")
SEPARATORS: Final = r"[\s_\-\u2010-\u2015\u2212]+"


def visible(text: str) -> str:
    """The text in Unicode's compatibility form (NFKC) without invisible characters, trimmed, with single spaces."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = unicodedata.normalize("NFKC", text)
    shown = (" " if unicodedata.category(letter) == "Cc" else letter for letter in text if not _is_invisible(letter))
    return " ".join(unicodedata.normalize("NFKC", "".join(shown)).split())


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or letter in FILLERS


def folded(text: str) -> str:
    """What texts share that differ only in case, Unicode form, invisible characters or spaces."""
    return visible(text).casefold()


def is_blank(text: str) -> bool:
    """Whether a cell says that there is no value: it is empty, or `nan`, `N/A`, `None`, `-`, `?`, ..."""
    return folded(text) in BLANKS


def likeness(text: str) -> str:
    """What two spellings of one label share: case, look-alike letters, and separators beside letters do not count.

    `Luminal A`, `luminal-a` and `LuminalA` are alike; `ER+` and `ER-`, `T1-2` and `T12` are not.
    """
    text = visible(text).translate(LOOKALIKES).casefold()
    text = re.sub(rf"(?<=[^\W\d_]){SEPARATORS}(?=[^\W_])|(?<=\d){SEPARATORS}(?=[^\W\d_])", "", text)
    return re.sub(r"\s+(?=\W)|(?<=\W)\s+", "", text)


def column_key(name: str) -> str:
    """A column's name as it is compared: ` Sample Index ` is `sample_index`."""
    return re.sub(r"[\s_-]+", "_", folded(name))
