"""Whatever bytes a table of labels holds, it is read or refused with the file's name; what is written well is read back."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctogres.errors import CohortError
from doctogres.slides.groups import looks_like_group
from doctogres.slides.labels import names_masks, read_labels, read_names
from doctogres.slides.listed_pairs import pairs_of_table
from doctogres.slides.names import NameProblem, SlideNames
from doctogres.slides.spelling import likeness, visible
from doctogres.spreadsheets import is_formula

HEADERS = (
    b"sample_index,label\n",
    b"sample_index;label;group\r\n",
    b"sep=\t\nimage\tmask\tlabel\n",
    b"\xef\xbb\xbfsample_index,label,patient\n",
    "sample_index,label\n".encode("utf-16"),
    b"image,mask\n",
    b"",
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
# Letters of many scripts, signs that a CSV quotes, and nothing that is blank or invisible.
TEXTS = (
    st.text(st.sampled_from("abÄéßçñ癌Жα0127 +(),;\t|\"'/%#."), min_size=1, max_size=12)
    .map(visible)
    .filter(lambda text: any(letter.isalnum() for letter in text) and not is_formula(text.lstrip("'")))
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("labels") / "train_labels.csv"


def named(error: Exception, *words: str) -> None:
    if not all(word in str(error) for word in words) or "\n" in str(error):
        pytest.fail(f"the error does not name {words} in one line: {error}")


def check(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    names_masks(path)
    for read in (read_labels, read_names):
        try:
            table = read(path)
        except CohortError as error:
            named(error, "train_labels.csv")
        else:
            slides = [row.sample for row in table.rows]
            try:
                found = table.of_slides({"img_0001", "img_1", "b"}, "train_data")
            except CohortError as error:
                named(error, "train_labels.csv, line")
            else:
                assert sum(map(len, found.values())) == len(slides)
            try:
                pairs, listed = pairs_of_table(table, path.parent, path.parent)
            except CohortError as error:
                named(error, "train_labels.csv, line")
            else:
                assert sum(map(len, listed.values())) == len(slides)
                assert all((path.parent / name).is_file() for names in pairs.pictures.values() for name in names)


@settings(max_examples=300)
@given(st.sampled_from(HEADERS), st.binary(max_size=120))
def test_any_bytes_are_read_or_named(path, header, noise):
    check(path, header + noise)


@settings(max_examples=300)
@given(st.sampled_from(HEADERS), st.text(st.sampled_from('01ab_img.png,;\t|"\n\r/\\-= \u200b\0é\ufeff'), max_size=80))
def test_any_text_is_read_or_named(path, header, text):
    check(path, header + text.encode())
    check(path, (header.decode("utf-8", errors="ignore") + text).encode("utf-16"))


@settings(max_examples=200)
@given(
    st.lists(TEXTS, min_size=2, max_size=6, unique_by=likeness),
    st.sampled_from(ENCODINGS),
    st.sampled_from(",;\t|"),
    st.booleans(),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_is_written_is_read_back(path, labels, encoding, delimiter, padded, quoting):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerows(
        [["sample_index", "label"], *([f"img_{n}", label] + [""] * padded for n, label in enumerate(labels))]
    )
    path.write_bytes((text.getvalue() + f"{delimiter}\n" * padded).encode(encoding))
    rows = read_labels(path).rows
    assert [(row.sample, row.label) for row in rows] == [(f"img_{n}", label) for n, label in enumerate(labels)]


@given(st.lists(st.from_regex(r"(img_)?[a-cé]?0{0,2}[0-3]{1,2}", fullmatch=True), min_size=1, max_size=6, unique=True))
def test_a_name_means_itself_and_its_other_unicode_form(slides):
    names = SlideNames(slides, "train_data")
    for slide in slides:
        assert names.slide(f"train_data/{slide}.png") == slide
        try:
            assert names.slide(unicodedata.normalize("NFD", slide)) in slides
        except NameProblem as problem:
            named(problem, "may mean")


@given(st.text(max_size=30))
def test_a_text_is_compared_as_it_is_shown(text):
    assert visible(visible(text)) == visible(text)
    assert likeness(visible(text)) == likeness(text)
    assert looks_like_group(visible(text)) == looks_like_group(text)
