"""A CSV as spreadsheets and scripts save it, read where only one reading is possible.

| what | becomes |
|---|---|
| UTF-8, or UTF-16 and UTF-32 with their mark; UTF-16 without it | read |
| another encoding | ASCII is read; another character only where Western and Central European Windows agree about it |
| `,` `;` tab or `|` | the one that gives the header the columns that are needed |
| a line `sep=;`, blank lines, `,,`, empty cells beyond the header | left out |
| a column that is needed twice, or values beyond the header | refused |
"""

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

from doctogres.errors import CohortError, listed
from doctogres.slides.spelling import column_key, visible
from doctogres.spreadsheets import as_written

DELIMITERS: Final = ",;\t|"
SEP_LINE: Final = re.compile(r'"?sep=(.)"?[,;\t|]*', re.IGNORECASE)
MARKS: Final = {  # the longer first: UTF-32's begins with UTF-16's
    b"\xff\xfe\0\0": "utf-32-le",
    b"\0\0\xfe\xff": "utf-32-be",
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
LOST: Final = "\ufffd"  # a character that could be several
# Where Windows' Western and Central European characters are the same: ä ö ü ß é ç, but neither è nor ñ.
AGREED: Final = frozenset(
    byte for byte in range(0xA0, 0x100) if bytes([byte]).decode("cp1252") == bytes([byte]).decode("cp1250")
)
MAX_COLUMNS: Final = 1000
SHOWN: Final = 80  # characters of a line in a message
REMEDY: Final = 'save it as "CSV UTF-8" with the columns'


@dataclass(frozen=True)
class Row:
    """A row of a sheet: its first line in the file, counted from 1, and a cell for each column."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """A table with a header.

    Attributes:
        name: of the file, for messages.
        columns: the header's names as they are written.
        rows: those with a value.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The columns' names as they are compared."""
        return tuple(map(column_key, self.columns))

    def position(self, key: str) -> int | None:
        """Where the column of this name stands, however it is spelt; None where there is none.

        Raises:
            CohortError: there are two.
        """
        places = [place for place, found in enumerate(self.keys) if found == key]
        if len(places) > 1:
            numbers = listed([place + 1 for place in places], separator=" and ")
            raise CohortError(f"{self.name} has the column {key} twice (columns {numbers}); keep the correct one")
        return places[0] if places else None

    def texts(self, key: str) -> list[str]:
        """The visible text of a column for every row, empty where there is no such column.

        Raises:
            CohortError: names the first row whose text cannot be read for certain.
        """
        return list(map(visible, self.stored(key)))

    def stored(self, key: str) -> list[str]:
        """The same texts as they are stored, but trimmed: a path may have two spaces, and a Unicode form of its own.

        An apostrophe that `spreadsheets.write_csv` put before a formula is left out.

        Raises:
            CohortError: see `texts`.
        """
        place = self.position(key)
        return [""] * len(self.rows) if place is None else [self._stored(row, place) for row in self.rows]

    def _stored(self, row: Row, place: int) -> str:
        cell = row.cells[place]
        if LOST in cell:
            self.refuse(row, "contains a character in an unknown encoding", 'save the table as "CSV UTF-8"')
        if "\n" in cell or "\r" in cell:
            self.refuse(row, "has a line break inside a value", "look for an unclosed quotation mark")
        formula = re.fullmatch(r'="(.*)"', cell.strip())  # how Excel is made to keep leading zeros
        return str(as_written((formula[1] if formula else cell).strip()))

    def refuse(self, row: Row, problem: str, remedy: str) -> NoReturn:
        """Refuses the table because of this row.

        Raises:
            CohortError: with line number, the row, the problem and the remedy.
        """
        raise CohortError(f"{self.name}, line {row.line} ({_shown(row.cells)}) {problem}; {remedy}")


def read_sheet(path: Path, needed: Sequence[Sequence[str]]) -> Sheet:
    """The table of a CSV whose header has all columns of one of the lists in `needed`.

    Raises:
        CohortError: it cannot be read, or not in one way only; names the line and the remedy.
    """
    text = _decoded(_bytes(path), path.name)
    name, columns = path.name, f"{REMEDY} {','.join(needed[0])}"
    try:
        delimiter = _delimiter(text, needed, f"{path}", columns)
        (_, header), *rows = _records(text, delimiter)
    except csv.Error as error:
        raise CohortError(f"{path} is not a readable CSV ({error}); {columns}") from error
    header = [LOST if LOST in cell else visible(cell) for cell in _without_empty_end(header)]
    sheet = Sheet(name, tuple(header), ())
    return Sheet(name, sheet.columns, tuple(_row(sheet, line, cells, delimiter) for line, cells in rows))


def has_columns(path: Path, needed: Sequence[Sequence[str]]) -> bool:
    """Whether `read_sheet` finds one of these lists of columns in the header; it refuses a bad row, which is not looked at here.

    Raises:
        CohortError: the file cannot be opened.
    """
    data = _bytes(path)
    try:
        _delimiter(_decoded(data, path.name), needed, path.name, "")
    except CohortError:
        return False
    return True


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CohortError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error


def _row(sheet: Sheet, line: int, cells: list[str], delimiter: str) -> Row:
    width = len(sheet.columns)
    if len(cells) == 1 and delimiter in cells[0]:
        sheet.refuse(Row(line, tuple(cells)), "is one value in quotation marks", "remove the quotation marks")
    if any(map(visible, cells[width:])):
        found = len(cells)
        sheet.refuse(
            Row(line, tuple(cells)),
            f"has {found} values for {width} columns",
            f"put a value with {'a comma' if delimiter == ',' else repr(delimiter)} in quotation marks",
        )
    return Row(line, (*cells[:width], *[""] * (width - len(cells))))


def _decoded(data: bytes, name: str) -> str:
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CohortError(f'{name} is a workbook, not a CSV; save it as "CSV UTF-8"')
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(data) > 1 and not any(data[start:10:2]):  # the upper bytes of the first letters of any header
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _windows(data)


def _windows(data: bytes) -> str:
    """The text of an unknown 8-bit encoding, with LOST for what could be several characters.

    A character beside another one beyond ASCII may be half of a Chinese one, or part of a Cyrillic word.
    """
    alone = re.search(rb"[\x80-\xff]{2}", data) is None
    return "".join(chr(byte) if byte < 0x80 or (alone and byte in AGREED) else LOST for byte in data)


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of every record with a value; the line `sep=` is none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line, first = 1, True
    for cells in reader:
        if any(map(visible, cells)):
            if not (first and SEP_LINE.fullmatch(delimiter.join(cells).strip(" "))):
                yield line, cells
            first = False
        line = reader.line_num + 1


def _delimiter(text: str, needed: Sequence[Sequence[str]], path: str, columns: str) -> str:
    """The delimiter that gives the header the columns that are needed."""
    headers = {delimiter: _header(text, delimiter) for delimiter in DELIMITERS}
    if (most := max(map(len, headers.values()))) > MAX_COLUMNS:
        raise CohortError(f"{path} has {most} columns, more than the limit of {MAX_COLUMNS}; {columns}")
    fitting = [delimiter for delimiter, header in headers.items() if _lacking(header, needed) is None]
    if len(fitting) == 1:
        return fitting[0]
    header = max(headers.values(), key=len)
    if not header:
        raise CohortError(f"{path} is empty; {columns}")
    has = ", ".join(map(visible, header))[:SHOWN]
    raise CohortError(f"{path} lacks the column {_lacking(header, needed)} (it has {has}); {columns}")


def _header(text: str, delimiter: str) -> list[str]:
    """The first record by a delimiter; none where quotation marks contradict it, as those of `"a","b"` do `;`."""
    try:
        return _without_empty_end(next(_records(text, delimiter), (1, []))[1])
    except csv.Error:
        return []


def _without_empty_end(cells: Sequence[str]) -> list[str]:
    """The cells up to the last one that shows anything."""
    end = len(cells)
    while end and not visible(cells[end - 1]):
        end -= 1
    return list(cells[:end])


def _lacking(header: Sequence[str], needed: Sequence[Sequence[str]]) -> str | None:
    """The first needed column that the header lacks, of the list that lacks the fewest; None where one is complete."""
    keys: Collection[str] = set(map(column_key, header))
    lacking = min(([column for column in columns if column not in keys] for columns in needed), key=len)
    return lacking[0] if lacking else None


def _shown(cells: Sequence[str]) -> str:
    text = ",".join(map(visible, cells[: SHOWN + 1])).rstrip(",")
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
