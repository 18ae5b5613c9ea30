"""What init understands of folders in different layouts, and that other stages take the table that it writes."""

import csv
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from doctogres.errors import CohortError
from doctogres.slides import levels
from doctogres.slides.cohort import find_slides, find_test_labels, open_cohort
from doctogres.slides.images import encode_png
from doctogres.slides.survey import Survey, survey
from doctogres.spreadsheets import write_csv
from doctogres.stages.init import cohort_table
from tests.slides.pyramids import tissue, write_pyramid

PICTURE = encode_png(np.full((8, 12, 3), 200, np.uint8))
MASK = encode_png(np.eye(8, 12, dtype=np.bool_))
OUTLINES = json.dumps({"type": "FeatureCollection", "features": []}).encode()


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            OUTLINES if name.endswith("json") else MASK if "mask" in name or "/label/" in name else PICTURE
        )
    return root


def table(root: Path, *lines: str, name: str = "labels.csv") -> Path:
    (root / name).write_text("\n".join(lines), encoding="utf-8")
    return root


def rows(found: Survey) -> list[tuple[str, str, str, str, str]]:
    return [(slide.image, slide.mask, slide.label, slide.group, slide.part) for slide in found.slides]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img_1.png", "mask_1.png"),
        ("a.png", "a_mask.png"),
        ("a.jpg", "mask-a.png"),
        ("images/a.png", "masks/a.png"),
        ("x/image/a.png", "x/label/a.png"),
        ("images/x/a.png", "masks/x/a.png"),
        ("a.svs", "a.geojson"),
        ("a.svs", "a.svs.geojson"),
        ("slides/a.ndpi", "annotations/a.geojson"),
    ],
)
def test_picture_and_mask_find_each_other(tmp_path: Path, image: str, mask: str) -> None:
    (slide,) = survey(put(tmp_path, image, mask)).slides
    assert (slide.image, slide.masks) == (image, [mask])


def test_a_mixture_with_a_table_of_other_names(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/1.png",
        "a/1_mask.png",
        "b/1.png",
        "b/masks/1.png",
        "c.svs",
        "c.geojson",
        "notes.txt",
        ".hidden.png",
    )
    table(
        tmp_path, "Filename;Diagnosis;Patient_ID;Scanner", "a/1.png;benign;P1;X", "b/1.png;tumour;P1;Y", "c;tumour;P2;X"
    )
    found = survey(tmp_path)
    assert rows(found) == [
        ("a/1.png", "a/1_mask.png", "benign", "P1", "train"),
        ("b/1.png", "b/masks/1.png", "tumour", "P1", "train"),
        ("c.svs", "c.geojson", "tumour", "P2", "train"),
    ]
    assert [slide.slide_id for slide in found.slides] == ["a_1", "b_1", "c"]
    assert (found.labels_from, found.group_from, list(found.about)) == ("labels.csv", "Patient_ID", ["Scanner"])
    assert [slide.about for slide in found.slides] == [{"Scanner": "X"}, {"Scanner": "Y"}, {"Scanner": "X"}]
    assert not found.problems
    said = found.counts()
    assert said["slides"] == "3 (png 2, svs 1)"
    assert said["labels"] == "tumour 2, benign 1; from labels.csv"
    assert said["patients"] == "2; from the column Patient_ID"


def test_without_a_table_the_folders_are_the_classes(tmp_path: Path) -> None:
    put(tmp_path, *(f"data/train/{name}/image/{n}.png" for name in ("Polyp", "Normal") for n in range(2)))
    put(tmp_path, *(f"data/train/{name}/label/{n}.png" for name in ("Polyp", "Normal") for n in range(2)))
    found = survey(tmp_path)
    assert {(slide.label, slide.part) for slide in found.slides} == {("Polyp", "train"), ("Normal", "train")}
    assert found.labels_from == "folders"
    assert all(slide.mask for slide in found.slides)


def test_train_and_test_may_use_the_same_names(tmp_path: Path) -> None:
    put(tmp_path, *(f"{part}/{kind}_{n}.png" for part in ("train", "test") for kind in ("img", "mask") for n in (1, 2)))
    table(tmp_path, "id,label", "img_1,a", "img_2,b", name="train_labels.csv")
    table(tmp_path, "id,label", "img_1,b", name="test_labels.csv")
    assert [(slide.slide_id, slide.part, slide.label) for slide in survey(tmp_path).slides] == [
        ("img_1", "test", "b"), ("img_2", "test", ""), ("img_1", "train", "a"), ("img_2", "train", "b"),
    ]  # fmt: skip


def test_without_any_labels_all_slides_are_to_be_predicted(tmp_path: Path) -> None:
    assert [slide.part for slide in survey(put(tmp_path, "a.png", "a_mask.png")).slides] == ["test"]


def test_what_is_to_be_mended_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.png",
        "a_mask.png",
        "a.geojson",
        "b.png",
        "c.png",
        "c_mask.png",
        "d_mask.png",
        "e.bmp",
        "f.png",
        "f_mask.png",
    )
    (tmp_path / "c_mask.png").write_bytes(encode_png(np.ones((3, 3), np.bool_)))
    (tmp_path / "f.png").write_bytes(PICTURE[:20])
    table(tmp_path, "name,label", "a,x", "c,x", "f,nan", "zz,x")
    problems = {(what, reason.partition(":")[0]) for what, reason in survey(tmp_path).problems}
    assert problems == {
        ("a", "ambiguous_files"), ("b", "missing_mask"), ("b", "unlabelled"), ("c", "size_mismatch"), ("d_mask.png", "unpaired_mask"),
        ("e.bmp", "unsupported_format"), ("f", "unlabelled"), ("f", "unreadable_image"), ("labels.csv", "missing_image"),
    }  # fmt: skip


def test_a_pyramid_is_judged_as_cleaning_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    monkeypatch.setenv("DOCTOGRES_MAX_PIXELS", "100000")
    for name, size in (("a", (600, 400)), ("b", (38, 25)), ("c", (300, 100)), ("d", (200, 300))):
        write_pyramid(tmp_path / f"{name}.tif", tissue(600, 400))
        (tmp_path / f"{name}_mask.png").write_bytes(encode_png(np.ones(size[::-1], np.bool_)))
    (tmp_path / "a_mask.png").unlink()
    (tmp_path / "a.geojson").write_bytes(OUTLINES)
    (tmp_path / "e.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-2000])
    put(tmp_path, "e_mask.png")
    write_pyramid(tmp_path / "f.tif", tissue(600, 400), levels=1)  # without a reduced copy: decoded whole
    put(tmp_path, "f_mask.png")
    found = survey(tmp_path)
    assert {slide: reason.partition(":")[0] for slide, reason in found.problems} == {
        "c": "size_mismatch",
        "d": "size_mismatch",
        "e": "unreadable_image",
        "f": "too_many_pixels",
    }


def test_a_table_with_a_row_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """Left out without a word, it would leave all slides without labels."""
    put(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png")
    table(tmp_path, "file,class", "a.png,x", "b.png,y,z,more")
    ((name, reason),) = survey(tmp_path).problems
    assert name == "labels.csv"
    assert reason.startswith("unreadable_table: ")
    assert "line 3" in reason
    table(tmp_path, "station,value", "a.png,x", "b.png,y,z,more")  # none of labels
    assert not survey(tmp_path).problems


def test_two_labels_for_one_slide_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a_mask.png")
    table(tmp_path, "name,label", "a,x", "a.png,y")
    with pytest.raises(CohortError, match=r"labels.csv line 3: a has two labels \(x, y\)"):
        survey(tmp_path)


def test_the_column_of_patients_is_no_other_one(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a_mask.png")
    table(tmp_path, "slide_id,label,site,scanner", "a,x,Bern,S")
    found = survey(tmp_path)
    assert (found.group_from, list(found.about)) == ("", ["site", "scanner"])
    table(tmp_path, "id,label,patient,case", "a,x,1,2")
    found = survey(tmp_path)
    assert found.group_from == ""
    assert found.problems == [
        ("labels.csv", "several_groups: labels.csv has the columns patient and case; call that of the patients group")
    ]


def test_a_table_that_init_wrote_is_not_read_again(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a_mask.png")
    table(tmp_path, "name,label", "a,x")
    written(survey(tmp_path), tmp_path / "cohort.csv")
    (tmp_path / "cohort.csv").write_text((tmp_path / "cohort.csv").read_text().replace(",x,", ",y,"))
    assert [slide.label for slide in survey(tmp_path).slides] == ["x"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no pictures of slides"):
        survey(table(tmp_path, "a,b"))


def written(found: Survey, path: Path) -> Path:
    write_csv(cohort_table(found, path.parent), path)
    return path


def test_other_stages_read_the_table_as_the_folder(tmp_path: Path) -> None:
    root = put(tmp_path / "data", *(f"{p}/images/{p}{n}.png" for p in ("train", "test") for n in range(3)))
    put(root, *(f"{p}/masks/{p}{n}.png" for p in ("train", "test") for n in range(3)))
    table(root, "name,label,patient,site", "train0,a,P1,X", "train1,b,P1,Y", "train2,b,P2,Y", "test0,a,P3,X")
    cohort = open_cohort(written(survey(root), tmp_path / "cohort.csv"), workspace=tmp_path / "ws")
    found = find_slides(cohort).set_index("slide_id")
    assert found["label"].to_dict() == {"train0": "a", "train1": "b", "train2": "b"}
    assert found["group"].to_dict() == {"train0": "P1", "train1": "P1", "train2": "P2"}
    assert set(found["outcome"]) == {"kept"}
    assert all((cohort / path).read_bytes() == MASK for path in found["mask"])
    assert all((cohort / path).read_bytes() == PICTURE for path in found["image"])
    tests = find_slides(cohort, labelled=False)
    assert tests["slide_id"].tolist() == ["test0", "test1", "test2"]
    assert find_test_labels(cohort)["test0"][0].label == "a"
    assert open_cohort(tmp_path / "cohort.csv", workspace=tmp_path / "ws") == cohort


def test_a_changed_table_is_another_cohort(tmp_path: Path) -> None:
    put(tmp_path, "d/a.png", "d/a_mask.png", "d/b.png", "d/b_mask.png")
    path = written(survey(table(tmp_path, "name,label", "a,x", "b,y")), tmp_path / "cohort.csv")
    before = open_cohort(path, workspace=tmp_path / "ws")
    path.write_text(path.read_text().replace(",y,", ",x,"))
    after = open_cohort(path, workspace=tmp_path / "ws")
    assert find_slides(before)["label"].tolist() == ["x", "y"]
    assert find_slides(after)["label"].tolist() == ["x", "x"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a,d/a.png,d/a_mask.png,x,middle", "has the part middle; write train or test"),
        ("other,d/a.png,d/a_mask.png,x,train", "has the slide_id other, but its picture is called a"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path: Path, row: str, told: str) -> None:
    put(tmp_path, "d/a.png", "d/a_mask.png")
    table(tmp_path, "slide_id,image,mask,label,part", row, name="cohort.csv")
    with pytest.raises(CohortError, match=told):
        open_cohort(tmp_path / "cohort.csv", workspace=tmp_path / "ws")


def test_files_that_are_missing_are_rows_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "d/a.png", "d/a_mask.png")
    table(tmp_path, "image,mask,label", "d/a.png,d/a_mask.png,x", "d/gone.png,d/a_mask.png,y", name="cohort.csv")
    found = find_slides(open_cohort(tmp_path / "cohort.csv", workspace=tmp_path / "ws"))
    reasons = {name: reason.partition(":")[0] for name, reason in zip(found["slide_id"], found["reason"], strict=True)}
    assert reasons == {"a": "", "gone": "missing_image"}


@pytest.mark.parametrize("folder", [unicodedata.normalize("NFD", "Zürich"), "batch  2", "№ 1"])
def test_a_folder_may_have_a_name_that_a_table_shows_otherwise(tmp_path: Path, folder: str) -> None:
    root = put(tmp_path / folder, f"{folder} a.png", f"{folder} a_mask.png", "b.png", "b_mask.png")
    table(root, "name,label", f"{folder} a,x", "b,y")
    path = written(survey(root), tmp_path / "cohort.csv")
    found = find_slides(open_cohort(path, workspace=tmp_path / "ws"))
    assert found["outcome"].tolist() == ["kept", "kept"]
    assert set(found["slide_id"]) == {f"{folder} a", "b"}


def test_folders_that_a_spreadsheet_would_run_are_found_and_classes_of_that_name_refused(tmp_path: Path) -> None:
    root = put(
        tmp_path, "+ve/a.png", "+ve/a_mask.png", "-ve/masks/b.png", "-ve/images/b.png", "'=/c.png", "'=/c_mask.png"
    )
    path = written(survey(root), root / "cohort.csv")
    with pytest.raises(
        CohortError, match=r"labels that begin with .* \('\+ve', '-ve'\); give these classes other names"
    ):
        find_slides(open_cohort(path, workspace=tmp_path / "ws"))
    path.write_text(path.read_text().replace(",'+ve,", ",positive,").replace(",'-ve,", ",negative,"))
    found = find_slides(open_cohort(path, workspace=tmp_path / "ws")).set_index("slide_id")
    assert found["label"].to_dict() == {"a": "positive", "b": "negative", "c": "'="}
    assert set(found["outcome"]) == {"kept"}


def test_a_path_may_have_what_nobody_sees(tmp_path: Path) -> None:
    put(tmp_path, "d e/ä.png", "d e/ä_mask.png")
    unseen = unicodedata.normalize("NFD", "d\u00a0e/ä\u200b")
    table(tmp_path, "image,mask,label", f'"{unseen}.png ","=""{unseen}_mask.png""",x', name="cohort.csv")
    found = find_slides(open_cohort(tmp_path / "cohort.csv", workspace=tmp_path / "ws"))
    assert found["outcome"].tolist() == ["kept"]


def test_an_empty_table_and_files_on_two_disks_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "image,mask,label", ",,x", name="empty.csv")
    table(tmp_path, "image,mask,label", "/one/a.png,/two/a.png,x", name="far.csv")
    for name, told in (("empty", "lists no files"), ("far", "no folder in common")):
        with pytest.raises(CohortError, match=told):
            open_cohort(tmp_path / f"{name}.csv", workspace=tmp_path / "ws")


def test_paths_are_relative_where_they_can_be(tmp_path: Path) -> None:
    found = survey(put(tmp_path / "data", "a.png", "a_mask.png"))
    assert cohort_table(found, tmp_path)["image"].tolist() == ["data/a.png"]
    assert cohort_table(found, tmp_path / "elsewhere")["image"].tolist() == [str(tmp_path / "data" / "a.png")]
    text = cohort_table(found, tmp_path).to_csv(index=False)
    assert next(csv.reader(text.splitlines())) == ["slide_id", "image", "mask", "label", "part"]
