"""Every row of docs/your-data.md: what becomes of each layout, and of each oddity in the table of labels."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from doctogres.errors import CohortError
from doctogres.slides.cohort import find_slides, find_test_groups, find_test_labels, open_cohort, pairing_files
from doctogres.slides.reasons import Reason, by_reason

PAGE = Path(__file__).parents[2] / "docs" / "your-data.md"
SECTIONS = ("Folder layouts", "The table of labels")
ROWS: dict[str, Callable[[Path], None]] = {}  # first cell of the row -> its test
HEADER = "sample_index,label"
FOUR = ("img_0000.png,a", "img_0001.png,a", "img_0002.png,b", "img_0003.png,b")


def row(cell):
    def register(test):
        ROWS[cell] = test
        return test

    return register


@pytest.fixture
def root(tmp_path):
    """Four slides in the challenge's layout, by their names: nothing opens a picture here."""
    folder = tmp_path / "data"
    put(folder, *(f"train_data/{kind}_{slide:04}.png" for slide in range(4) for kind in ("img", "mask")))
    write(folder, HEADER, *FOUR)
    return folder


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def empty(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return root


def write(root, *lines, name="train_labels.csv", encoding="utf-8"):
    (root / name).write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


def found(root, **options):
    return find_slides(root, **options).set_index("slide_id")


def labels(root, **options):
    return found(root, **options)["label"].to_dict()


def codes(root, **options):
    return {slide: Reason.of(reason) for slide, reason in found(root, **options)["reason"].items() if reason}


def files(root, **options):
    return {slide: (row["image"], row["mask"]) for slide, row in found(root, **options).iterrows()}


def reads_as_usual(root, **options):
    assert labels(root, **options) == {"img_0000": "a", "img_0001": "a", "img_0002": "b", "img_0003": "b"}
    assert not codes(root, **options)


def refused(root, *words, **options):
    with pytest.raises(CohortError) as refusal:
        find_slides(root, **options)
    assert all(re.search(word, str(refusal.value)) for word in words), str(refusal.value)


def doc_rows():
    text = PAGE.read_text("utf-8")
    for section in SECTIONS:
        lines = text.partition(f"## {section}\n")[2].partition("\n## ")[0].splitlines()
        rows = [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines if line.startswith("|")]
        yield from rows[2:]


def test_every_row_of_the_page_has_its_test():
    assert list(doc_rows()) == list(ROWS)


@row("a table with the columns `image` and `mask`")
def listed(root):
    put(empty(root), "scans/one.png", "scans/two.png", "scans/spare.png", "drawn/1.png", "drawn/2.png")
    write(root, "image,mask,label,group", "scans/one.png,drawn/2.png,a,p", "scans/two.png,drawn/1.png,b,q")
    assert files(root)["one"] == ("scans/one.png", "drawn/2.png")
    assert files(root)["two"] == ("scans/two.png", "drawn/1.png")
    assert labels(root) == {"one": "a", "two": "b", "spare": None}
    assert found(root)["group"].to_dict() == {"one": "p", "two": "q", "spare": None}
    assert codes(root) == {"spare": "missing_mask"}
    write(root, "image,mask,label", "scans/one.png,drawn/2.png,a", "scans/two.png,,b", "scans/3.png,drawn/1.png,b")
    assert codes(root) == {"spare": "missing_mask", "two": "missing_mask", "3": "missing_image"}
    assert "scans/3.png does not exist" in found(root)["reason"]["3"]
    write(root, "image,mask,label", "scans/one.png,drawn/2.png,a", "scans/one.png,drawn/1.png,a")
    assert codes(root)["one"] == "ambiguous_files"


@row("`img_0000.png`, `mask_0000.png`")
def challenge(root):
    put(root, "train_data/legend.png", "train_data/masks/img_0000.png")
    reads_as_usual(root)
    assert files(root)["img_0000"] == ("train_data/img_0000.png", "train_data/mask_0000.png")


@row("`images/a.png` (or `a.png`), `masks/a.png`")
def folders(root):
    put(empty(root), "train_data/Images/a.png", "train_data/Masks/a.tif", "train_data/Images/b.jpg")
    put(root, "train_data/Masks/b_mask.png", "train_data/Images/img_c.png", "train_data/Masks/mask_c.png")
    put(root, "train_data/Masks/d_mask.png")
    write(root, HEADER, "a,x", "b.jpg,x", "img_c.png,y", "d,y")
    assert files(root)["a"] == ("train_data/Images/a.png", "train_data/Masks/a.tif")
    assert files(root)["b"] == ("train_data/Images/b.jpg", "train_data/Masks/b_mask.png")
    assert files(root)["img_c"] == ("train_data/Images/img_c.png", "train_data/Masks/mask_c.png")
    assert codes(root) == {"d": "missing_image"}
    put(empty(root), "train_data/img_1.png", "train_data/masks/img_1.png", "train_data/img_2.png")
    write(root, HEADER, "img_1,x", "img_2,x")
    assert files(root)["img_1"] == ("train_data/img_1.png", "train_data/masks/img_1.png")
    assert codes(root) == {"img_2": "missing_mask"}
    assert "train_data/masks/img_2.png does not exist" in found(root)["reason"]["img_2"]


@row("`a.png`, `a_mask.png` (or `mask_a.png`, `a-mask.png`)")
def equal_names(root):
    put(
        empty(root),
        *(f"train_data/{name}.png" for name in ("a", "a_mask", "b", "mask_b", "c", "c-Mask", "d", "e_mask")),
    )
    put(root, "train_data/img_f.png", "train_data/f_mask.png")
    write(root, HEADER, "a.png,x", "b,x", "c.png,y", "d,y", "e,y", "f,x")
    assert files(root)["c"] == ("train_data/c.png", "train_data/c-Mask.png")
    assert files(root)["b"] == ("train_data/b.png", "train_data/mask_b.png")
    assert files(root)["img_f"] == ("train_data/img_f.png", "train_data/f_mask.png")
    assert labels(root)["img_f"] == "x"
    assert codes(root) == {"d": "missing_mask", "e": "missing_image"}
    put(root, "train_data/mask_a.png")
    assert codes(root)["a"] == "ambiguous_files"


@row("`a.geojson` or `a.png.geojson` instead of a mask, in any of these layouts")
def outlines(root):
    layouts = {
        "train_data/img_0000.png": "train_data/img_0000.geojson",
        "train_data/img_0001.png": "train_data/mask_0001.geojson",
        "train_data/a.png": "train_data/a.geojson",
        "train_data/b.png": "train_data/b.png.geojson",
        "train_data/c.png": "train_data/c_mask.geojson",
        "train_data/images/d.png": "train_data/masks/d.geojson",
        "train_data/images/e.png": "train_data/masks/mask_e.GeoJSON",
    }
    for picture, mask in layouts.items():
        put(empty(root), picture, mask)
        write(root, HEADER, f"{Path(picture).stem},a")
        (slide,) = find_slides(root, annotations="Tumor").to_dict("records")
        assert (slide["image"], slide["mask"], slide["annotations"]) == (picture, mask, "Tumor")
        assert slide["outcome"] == "kept"
    put(root, "train_data/images/e.png", "train_data/masks/e.png")
    assert find_slides(root)["reason"].map(Reason.of).tolist() == [Reason.AMBIGUOUS_FILES]
    put(empty(root), "train_data/x.png", "train_data/x.geojson")
    write(root, "image,mask,label", "x.png,x.geojson,a")
    assert find_slides(root)["mask"].tolist() == ["train_data/x.geojson"]


@row("pictures without a mask of such a name")
def no_layout(root):
    put(empty(root), "train_data/a.png", "train_data/b.png")
    write(root, HEADER, "a,x", "b,y")
    refused(root, "train_data holds no pictures with masks", "a_mask.png", "masks/", "image,mask,label", "img_0000")
    put(empty(root), "train_data/P1/img_0.png", "train_data/P1/mask_0.png")
    write(root, HEADER, "P1/img_0.png,x")
    refused(root, r"train_data holds no pictures with masks \(it holds P1\)")
    put(empty(root), "test_data/a.png", "test_data/b.png")
    refused(root, "test_data holds no pictures with masks", labelled=False)


@row("slides in the folder itself, without `train_data/`")
def at_the_top(root):
    put(empty(root), "images/a.png", "masks/a.png", "images/b.png", "masks/b.png")
    assert list(files(root, labelled=False)) == ["a", "b"]
    write(root, HEADER, "a,x", "b,y")
    assert files(root)["a"] == ("images/a.png", "masks/a.png")
    assert open_cohort(root.parent, workspace=root) == root.resolve()


@row("`.json`, `.xml`, `.txt`, `Thumbs.db`, `._img_0000.png`, `.DS_Store` beside a slide")
def sidecars(root):
    put(root, *(f"train_data/img_0000{ending}" for ending in (".json", ".xml", ".png.aux.xml", ".txt")))
    put(root, "train_data/mask_0001.json", "train_data/Thumbs.db", "train_data/._img_0000.png", "train_data/.DS_Store")
    put(root, "train_data/img_0000.svs", "train_data/img_0009.json")
    reads_as_usual(root)
    (root / "train_data").rename(root / "test_data")
    assert list(found(root, labelled=False).index) == ["img_0000", "img_0001", "img_0002", "img_0003"]
    assert not codes(root, labelled=False)


@row("`img_0000.svs`, `.ndpi`, `.scn`, `.bif`, and no PNG, JPEG or TIFF of that name")
def scanner_file(root):
    (root / "train_data/img_0000.png").rename(root / "train_data/img_0000.SVS")
    reads_as_usual(root)
    assert files(root)["img_0000"] == ("train_data/img_0000.SVS", "train_data/mask_0000.png")


@row("`img_0000.bmp`, `.mrxs`, ... and no PNG, JPEG or TIFF of that name; a mask as `.svs`")
def no_reader(root):
    (root / "train_data/img_0000.png").rename(root / "train_data/img_0000.mrxs")
    (root / "train_data/mask_0001.png").rename(root / "train_data/mask_0001.bmp")
    (root / "train_data/mask_0002.png").rename(root / "train_data/mask_0002.svs")
    assert codes(root) == {f"img_000{number}": "unsupported_format" for number in (0, 1, 2)}


@row("`img_0000.png` and `img_0000.jpg`")
def two_pictures(root):
    put(root, "train_data/img_0000.jpg")
    assert codes(root) == {"img_0000": "ambiguous_files"}


@row("paths in the table: relative to the cohort or to `train_data/`, with `/` or `\\`")
def relative_paths(root):
    put(empty(root), *(f"train_data/{kind}/{name}.png" for name in "abc" for kind in ("he", "drawn")))
    lines = ("train_data/he/a.png,train_data/drawn/a.png,x", "he/b.png,drawn/b.png,x", r"he\C.png,.\drawn\c.png,y")
    write(root, "image,mask,label", *lines)
    assert files(root) == {name: (f"train_data/he/{name}.png", f"train_data/drawn/{name}.png") for name in "abc"}


@row("an absolute path inside the cohort, or one of another computer that ends in it")
def absolute_paths(root):
    put(empty(root), *(f"{kind}/{name}.png" for name in "ab" for kind in ("he", "drawn")))
    write(
        root, "image,mask,label", f"{root}/he/a.png,{root}/drawn/a.png,x", r"D:\study\he\b.png,/home/me/s/drawn/b.png,y"
    )
    assert files(root) == {name: (f"he/{name}.png", f"drawn/{name}.png") for name in "ab"}


@row("a path that leads out of the cohort")
def outside(root):
    put(empty(root), "he/a.png", "a.png")
    put(root.parent, "he/a.png")
    for path in ("../he/a.png", f"{root.parent}/he/a.png"):
        write(root, "image,mask,label", f"{path},a.png,x")
        refused(root, "train_labels.csv, line 2", "points outside the cohort")


@row("a slide called `=1+1`, `@a` or `-a`, or with a line break or another control character in its name")
def unsafe_names(root):
    names = ("=1+1", "@a", "-a", "\uff1da", "a\nb", "a\x1b[2Jb")
    put(root, *(f"train_data/masks/{name}.png" for name in ("b", "-1", "c-", *names)))
    put(root, *(f"train_data/{name}.png" for name in ("b", "-1", "c-", *names)))
    write(root, HEADER, "b,x", "-1,x", "c-,x", "=1+1,y", "@a,y", "-a,y")
    for path in root.glob("train_data/*_0*"):
        path.unlink()
    assert codes(root) == dict.fromkeys(names, "unsafe_name")
    shown = found(root)["reason"]["a\x1b[2Jb"]
    assert shown.startswith(r"unsafe_name: a\x1b[2Jb begins with = + - @ or has control characters")
    line = by_reason([(slide, reason) for slide, reason in found(root)["reason"].items() if reason])[0]
    assert line.isprintable()
    assert line.startswith("6 unsafe_name: ")


@row("`P1/a.png` and `P2/a.png` in one table")
def one_name_twice(root):
    put(empty(root), *(f"{patient}/{name}.png" for patient in ("P1", "P2") for name in ("a", "drawn")), "P2/b.png")
    write(root, "image,mask,label", "P1/a.png,P1/drawn.png,x", "P2/a.png,P2/drawn.png,y", "P2/b.png,P2/drawn.png,y")
    assert list(files(root)) == ["P1_a", "P2_a", "b"]


@row("`test_labels.csv` with the columns `image` and `mask`")
def listed_test_slides(root):
    put(empty(root), "test_data/one.png", "test_data/1.png")
    write(root, "image,mask", "one.png,1.png", name="test_labels.csv")
    assert files(root, labelled=False) == {"one": ("test_data/one.png", "test_data/1.png")}
    assert pairing_files(root) == ["test_labels.csv"]
    write(root, "image,mask,label", "one.png,1.png,x", name="test_labels.csv")
    assert find_test_labels(root)["one"][0].label == "x"
    put(root, "test_data/img_2.png", "test_data/mask_2.png", "test_data/3.png")
    write(root, "image,mask,group", "one.png,1.png,p", "img_2.png,3.png,q, r", name="test_labels.csv")
    refused(root, "test_labels.csv, line 3", "4 values for 3 columns", labelled=False)  # not paired by names
    with pytest.raises(CohortError, match=r"test_labels.csv, line 3 .* has 4 values for 3 columns"):
        find_test_groups(root)
    write(root, "image,mask,group", 'one.png,1.png,"p', name="test_labels.csv")
    refused(root, "test_labels.csv is not a readable CSV", labelled=False)


@row("UTF-8 with or without a byte-order mark, UTF-16")
def unicode(root):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        write(root, HEADER, *FOUR, encoding=encoding)
        reads_as_usual(root)
        write(root, HEADER, *(line.replace(",a", ",癌") for line in FOUR), encoding=encoding)
        assert labels(root)["img_0000"] == "癌"


@row("Windows' encoding (cp1252)")
def windows(root):
    write(root, HEADER, *(line.replace(",a", ",dä mé") for line in FOUR), encoding="cp1252")
    assert labels(root)["img_0000"] == "dä mé"
    for label, encoding in (
        ("crème", "cp1252"),
        ("рак", "cp1251"),
        ("癌", "gbk"),
        ("rak č", "cp1250"),
        ("癌", "shift-jis"),
    ):
        write(root, HEADER, *FOUR[:2], f"img_0002.png,{label}", FOUR[3], encoding=encoding)
        refused(root, "line 4", "unknown encoding", "UTF-8")
    write(root, f"{HEADER},note", *(f"{line},врач" for line in FOUR), encoding="cp1251")
    reads_as_usual(root)


@row("`;`, tab or `\\|` between the values, quoted or not; a first line `sep=;`")
def delimiters(root):
    for delimiter in ";\t|":
        write(root, f"{HEADER},p", *(f'{line},"1,5"' for line in FOUR))
        text = (root / "train_labels.csv").read_text().replace('"1,5"', "1.5").replace(",", delimiter)
        (root / "train_labels.csv").write_text(text.replace("1.5", "1,5"))
        reads_as_usual(root)
        (root / "train_labels.csv").write_text(f"sep={delimiter}\n{text}")
        reads_as_usual(root)
    write(root, "sep=,", HEADER, *FOUR)
    reads_as_usual(root)
    write(root, '"sample_index","label"', *(f'"{line[:12]}","{line[-1]}"' for line in FOUR))
    reads_as_usual(root)
    write(root, "sep=,", HEADER, "img_0000.png,a", ",b")
    refused(root, "line 4")


@row("commas at the end of a row, `,,`, blank lines")
def padding(root):
    write(root, "", HEADER, *(f"{line},," for line in FOUR[:2]), ",,", " , \u200b", "", *FOUR[2:], ",,")
    reads_as_usual(root)
    write(root, f"{HEADER},", *(f"{line}," for line in FOUR), ",,")
    reads_as_usual(root)


@row("a column of row numbers, and others that are not needed")
def other_columns(root):
    write(root, f",stain,{HEADER},notes,notes", *(f"{n},HE,{line},x,y" for n, line in enumerate(FOUR)))
    reads_as_usual(root)


@row("`Sample Index`, `LABEL`: other case, spaces")
def header(root):
    for name in ("Sample Index,LABEL", " sample_index ,\u200bLabel", "SAMPLE-INDEX,label"):
        write(root, name, *FOUR)
        reads_as_usual(root)
    write(root, "sample,label", *FOUR)
    refused(root, "lacks the column sample_index", "it has sample, label")


@row('`="0002"`, as Excel keeps zeros')
def formula(root):
    write(root, HEADER, *(f'"=""{line[4:8]}""",{line[-1]}' for line in FOUR))
    reads_as_usual(root)


@row("a column that is needed twice")
def needed_twice(root):
    write(root, f"{HEADER}, Label", *(f"{line},c" for line in FOUR))
    refused(root, r"column label twice \(columns 2 and 3\)", "keep")


@row("more than 1000 columns")
def many_columns(root):
    write(root, HEADER + "".join(f",c{n}" for n in range(998)), *FOUR)
    reads_as_usual(root)
    write(root, HEADER + "," * 50_000, *FOUR)
    reads_as_usual(root)
    for columns in (1001, 100_000):
        write(root, HEADER + "".join(f",c{n}" for n in range(columns - 2)), *FOUR)
        refused(root, f"train_labels.csv has {columns} columns, more than the limit of 1000; save .{{,99}}$")


@row("more values than columns, a quotation mark that is not closed, a workbook")
def no_csv(root):
    write(root, HEADER, *FOUR[:2], "img_0002.png,b, invasive", FOUR[3])
    refused(root, r"line 4 \('img_0002.png,b,invasive'\) has 3 values for 2 columns", "quotation marks")
    write(root, HEADER, *FOUR[:2], 'img_0002.png,"b', FOUR[3])
    refused(root, "train_labels.csv is not a readable CSV", "UTF-8")
    write(root, HEADER, *FOUR[:2], 'img_0002.png,"b', 'img_0003.png,b"')
    refused(root, "line 4", "line break", "quotation mark")
    write(root, HEADER, *FOUR[:2], '"img_0002.png,b"', FOUR[3])
    refused(root, "line 4", "one value in quotation marks")
    (root / "train_labels.csv").write_bytes(b"PK\x03\x04 and more")
    refused(root, "workbook", "CSV UTF-8")


@row("`img_0002.png`, `img_0002`, `0002.png`")
def suffixes(root):
    write(root, HEADER, "img_0000.png,a", "img_0001,a", "0002.png,b", "0003.tif,b")
    reads_as_usual(root)


@row("`img_4.svs`, and the picture is called `img_4.svs.png`")
def suffix_in_the_name(root):
    put(root, "train_data/img_4.svs.png", "train_data/mask_4.svs.png")
    for name in ("img_4.svs", "img_4.svs.png", "train_data/img_4.svs", "IMG_4.SVS", "4.svs"):
        write(root, HEADER, *FOUR, f"{name},b")
        assert labels(root)["img_4.svs"] == "b"
        assert not codes(root)
    put(root, "train_data/img_4.svs", "train_data/mask_4.png")
    for name in ("img_4", "img_4.svs"):  # the picture, beside which the other may be its thumbnail
        write(root, HEADER, *FOUR, f"{name},a", "img_4.svs.png,b")
        assert (labels(root)["img_4"], labels(root)["img_4.svs"]) == ("a", "b")


@row("`2`, `2.0`, `img_2`")
def lost_zeros(root):
    write(root, HEADER, "0,a", "1.0,a", "img_2,b", "img_3.png,b")
    reads_as_usual(root)


@row("`2` where there are `img_2` and `img_02`")
def several_fit(root):
    put(root, *(f"train_data/{kind}_{number}.png" for kind in ("img", "mask") for number in ("2", "02")))
    write(root, HEADER, "img_0000,a", "img_2,b", "002,a")
    refused(root, r"line 4 \('002,a'\) may mean img_0002 or img_02 or img_2", "full name")
    write(root, HEADER, "img_0000,a", "img_2,b", "img_02,a")
    assert (labels(root)["img_2"], labels(root)["img_02"]) == ("b", "a")


@row("numbers, some of which fit no picture, while some pictures have no row")
def shifted(root):
    write(root, HEADER, "1,a", "2,a", "3,b", "4,b")
    refused(root, r"line 5 \('4,b'\)", "number", "full names")
    write(root, HEADER, "0,a", "1,a", "2,b", "3,b", "4,b")
    assert codes(root) == {"4": "missing_image"}


@row("`train_data/img_0002.png`, `train_data\\img_0002.png`, `D:\\slides\\img_0002.png`")
def name_paths(root):
    write(
        root,
        HEADER,
        "train_data/img_0000.png,a",
        r"train_data\img_0001,a",
        r"D:\slides\img_0002.png,b",
        "/x/img_0003,b",
    )
    reads_as_usual(root)


@row("`test_data/img_0002.png` among the training slides; one name in two folders")
def wrong_folder(root):
    write(root, HEADER, *FOUR[:2], "test_data/img_0002.png,b")
    refused(root, "line 4", "lies in test_data, not in train_data")
    write(root, HEADER, "p1/img_0000.png,a", "p2/img_0000.png,a")
    refused(root, "line 3", "img_0000.*different folder")


@row("a name in another Unicode form (`é` as one character or two), or in other case")
def unicode_names(root):
    composed, apart = (unicodedata.normalize(form, "img_é") for form in ("NFC", "NFD"))
    put(root, f"train_data/{apart}.png", f"train_data/{composed.replace('img', 'mask')}.PNG")
    write(root, HEADER, *FOUR[:3], "IMG_0003.PNG,b", f"{composed}.png,a")
    assert labels(root)[apart] == "a"
    assert labels(root)["img_0003"] == "b"
    assert not codes(root)


@row("several rows of a slide")
def several_rows(root):
    write(root, HEADER, *FOUR, "img_0000,a", "1,b")
    assert codes(root) == {"img_0001": "conflicting_labels"}
    assert labels(root)["img_0000"] == "a"


@row("a label without a name")
def nameless(root):
    write(root, HEADER, *FOUR, ",b")
    refused(root, "line 6", "no slide name")


@row("`Luminal A` with a zero-width or no-break space, double spaces, full-width letters")
def invisible(root):
    spellings = ("Luminal A\u200b", "\ufeffLuminal\u00a0A", " Luminal  A", "Ｌｕｍｉｎａｌ A\u00ad")
    write(root, HEADER, *(f"img_{n:04},{label}" for n, label in enumerate(spellings)))
    assert set(labels(root).values()) == {"Luminal A"}


@row("`luminal a`, `Luminal-A` or a Cyrillic `А` beside `Luminal A`")
def look_alikes(root):
    for twin in ("luminal a", "Luminal-A", "Luminal_A", "LuminalA", "Luminal А"):
        write(root, HEADER, "img_0000,Luminal A", "img_0001,Luminal A", f"img_0002,{twin}", "img_0003,b")
        refused(root, rf"'Luminal A' \(2 rows, the first: line 2, img_0000\).*'{twin}' \(1 rows, .*line 4, img_0002\)")
    for label, other in (("ER+", "ER-"), ("T1-2", "T12"), ("HER2(+)", "HER2(-)"), ("a/b", "ab"), ("A1", "A 2")):
        write(root, HEADER, f"img_0000,{label}", f"img_0001,{label}", f"img_0002,{other}", f"img_0003,{other}")
        assert set(labels(root).values()) == {label, other}


@row("an empty label, `nan`, `NA`, `N/A`, `None`, `null`, `-`, `?`, `unknown`")
def blank_labels(root):
    for blank in ("", " \u200b", "nan", "NaN", "NA", "N/A", "None", "null", "-", "–", "?", "unknown", "#N/A"):
        write(root, HEADER, *FOUR[:3], f"img_0003.png,{blank}")
        assert codes(root) == {"img_0003": "unlabelled"}
        assert labels(root)["img_0003"] is None
    assert "has the label '#N/A', which counts as blank" in found(root)["reason"]["img_0003"]


@row("`-` beside `+`")
def signs(root):
    write(root, HEADER, "img_0000,+", "img_0001,+", "img_0002,-", "img_0003,-")
    assert not codes(root)
    assert set(labels(root).values()) == {"+", "-"}


@row("`=1+1`, `@a`, `-a` or `+a`, which spreadsheets run, or a control character inside a label")
def formulas(root):
    for label in ("=1+1", "@a", "-a", "+a", "-2+3", "\uff1d1", " \u200b=1", "a\x07b", "a\x1b[2Jb"):
        write(root, HEADER, f"img_0000,{label}", *FOUR[1:])
        refused(root, r"labels that begin with = \+ - @ or hold control characters.*give these classes other names$")
    write(root, HEADER, *(f"img_000{n},=a{n}" for n in range(4)), *(f"img_x{n},=a{n}" for n in range(4, 9)))
    refused(root, r"\('=a0', '=a1', '=a2', '=a3', '=a4' and 4 more\)")


@row("`HER2-`, `1+`, `++`, `-1`")
def signed(root):
    write(root, HEADER, "img_0000,HER2-", "img_0001,1+", "img_0002,++", "img_0003,-1")
    assert labels(root) == {"img_0000": "HER2-", "img_0001": "1+", "img_0002": "++", "img_0003": "-1"}


@row("`group`, `Group`, `GROUP`")
def groups(root):
    for name in ("group", "Group", " GROUP\u200b"):
        write(
            root,
            f"{HEADER},{name}",
            *(f"{line},{group}" for line, group in zip(FOUR, ("P1", "p1 ", "2", "2"), strict=True)),
        )
        assert found(root)["group"].to_list() == ["P1", "P1", "2", "2"]


@row("a group that is blank in some rows, `unknown` or `-`")
def blank_groups(root):
    for blank in ("", "unknown", "-", "nan"):
        write(root, f"{HEADER},group", *(f"{line},p" for line in FOUR[:2]), f"{FOUR[2]},{blank}", f"{FOUR[3]},p")
        refused(root, "line 4", "no group", "1 of the 4 rows", "patient")
    write(root, f"{HEADER},group", *(f"{line}," for line in FOUR))
    reads_as_usual(root)
    write(root, f"{HEADER},group", *(f"{line},p" for line in FOUR[:3]), "img_0003,,")
    assert codes(root) == {"img_0003": "unlabelled"}


OWNERS = (
    "patient", "patient_id", "PatientID", "PATIENTID", "Patient No.", "case", "Case_ID", "caseno", "donor", "Subject", "subjectId",
    "mrn", "accession number", "specimen", "block", "site", "source_slide", "biopsy-id", "ID", "Patientennummer", "患者",
)  # fmt: skip


@row("`patient`, `PatientID`, `case_no`, `donor`, `specimen`, `site`, ... with values that slides share")
def hidden_groups(root):
    for name in OWNERS:
        write(root, f"{HEADER},{name}", *(f"{line},{value}" for line, value in zip(FOUR, "PpQR", strict=True)))
        refused(
            root, re.escape(f"{name!r}"), "'P': img_0000, img_0001", "rename the column to `group`", "ignore_columns="
        )
    for name in ("patient_age", "Stain", "split", "batch", "diagnosis_id", "website", "specimen type"):
        write(root, f"{HEADER},{name}", *(f"{line},x" for line in FOUR))
        reads_as_usual(root)
    write(root, f"{HEADER},case,donor", *(f"{line},{n},d" for n, line in enumerate(FOUR)))
    refused(root, "'donor'")


@row("such a column in which no two slides share a value, or whose slides `group` keeps together")
def harmless(root):
    for name in OWNERS:
        write(root, f"{HEADER},{name}", *(f"{line},{number}" for number, line in enumerate(FOUR)))
        reads_as_usual(root)
    write(root, f"{HEADER},case,group", "img_0000,a,1,p", "img_0001,a,1,p", "img_0002,b,2,p", "img_0003,b,3,q")
    reads_as_usual(root)
    write(root, f"{HEADER},case,group", "img_0000,a,1,p", "img_0001,a,1,q", "img_0002,b,2,p", "img_0003,b,3,q")
    refused(root, "'case'", "merge these groups in `group`")


@row("`site`, `centre`, `hospital`, `clinic`, `institute`, `institution` beside a `group`")
def places(root):
    for name in ("site", "Centre", "hospital", "clinic", "institute", "institution"):
        write(root, f"{HEADER},group,{name}", *(f"{line},p{number},x" for number, line in enumerate(FOUR)))
        reads_as_usual(root)


@row("`site`, `scanner`, `stain`, `age`, `sex`, ... and columns named in `subgroups`")
def subgroups(root):
    write(root, f"{HEADER},scanner,batch,case", *(f"{line},x,y,z" for line in FOUR))
    refused(root, "'case'")
    reads_as_usual(root, subgroups="case")
    assert {"s_batch", "s_case"} <= set(find_slides(root, subgroups="batch,case"))
    assert "s_scanner" in find_slides(root, ignore_columns=["case"])


@row("a column in `ignore_columns`")
def ignored(root):
    write(root, f"{HEADER},Case ID,site", *(f"{line},1,s" for line in FOUR))
    refused(root, "'site'", ignore_columns=["case id"])
    reads_as_usual(root, ignore_columns=["case id", "site"])
    refused(root, "ignore_columns=cases: train_labels.csv has no such column", "Case ID", ignore_columns=["cases"])


@pytest.mark.parametrize("cell", ROWS)
def test_a_row_of_the_page(cell, root):
    ROWS[cell](root)
