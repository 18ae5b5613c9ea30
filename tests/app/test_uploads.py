"""Files dropped on the page."""

import pytest

from doctogres.app.uploads import Pair, Upload, megabytes, paired
from doctogres.slides.pairing import pairs_in


def uploads(*names: str) -> list[Upload]:
    return [Upload(name, name.encode(), f"{number}-{name}") for number, name in enumerate(names)]


def found(files: list[str], masks: list[str] | None = None) -> dict[str, str]:
    """Slide -> mask."""
    pairs = paired(uploads(*files), uploads(*masks or []))
    return {pair.slide.name: pair.mask.name if pair.mask else "" for pair in pairs if pair.slide and not pair.problem}


def problems(files: list[str], masks: list[str] | None = None) -> list[str]:
    return [pair.problem for pair in paired(uploads(*files), uploads(*masks or [])) if pair.problem]


@pytest.mark.parametrize(
    ("files", "masks", "expected"),
    [
        (["mask_0001.png", "img_0001.png"], [], {"img_0001.png": "mask_0001.png"}),
        (["a.jpg", "a_mask.png", "b.tif", "mask-b.tif"], [], {"a.jpg": "a_mask.png", "b.tif": "mask-b.tif"}),
        (["img_0001.png", "mask_0001.png", "b.png", "mask_b.png"], [], {"b.png": "mask_b.png", "img_0001.png": "mask_0001.png"}),
        (["a.png", "b.png"], ["b.png"], {"a.png": "", "b.png": "b.png"}),
        (["a.png", "a_mask.png", "b.png"], ["b.png"], {"a.png": "a_mask.png", "b.png": "b.png"}),
        (["img_0001.png"], ["mask_0001.png"], {"img_0001.png": "mask_0001.png"}),
        (["A.PNG"], ["a.png"], {"A.PNG": "a.png"}),
        (["a.png", "a.geojson", "b.tif", "b.tif.geojson"], [], {"a.png": "a.geojson", "b.tif": "b.tif.geojson"}),
        (["a.png"], [], {"a.png": ""}),
        ([], [], {}),
    ],
)  # fmt: skip
def test_a_mask_is_found_by_its_name(files: list[str], masks: list[str], expected: dict[str, str]) -> None:
    assert found(files, masks) == expected
    assert problems(files, masks) == []


def test_the_pairs_are_those_of_a_folder(tmp_path) -> None:
    names = ["img_0001.png", "img_0002.png", "mask_0001.png", "mask_0002.png"]
    for name in names:
        (tmp_path / name).touch()
    pairs = pairs_in(tmp_path)
    assert pairs is not None
    assert found(names) == {pairs.pictures[slide][0]: pairs.masks[slide][0] for slide in pairs.slides}


@pytest.mark.parametrize(
    ("files", "masks", "words"),
    [
        (["a_mask.png"], [], ("the mask a_mask.png", "add its slide", "S1_mask.png")),
        (["a.png"], ["b.png"], ("the mask b.png",)),
        (["a.png", "a.jpg"], [], ("2 slides have the name a (a.png, a.jpg)", "remove all but one")),
        (["a.png", "a.png"], [], ("2 slides have the name a (a.png, a.png)",)),
        (["a.png", "a_mask.png"], ["a.png"], ("2 masks have the name a (a_mask.png, a.png)",)),
    ],
)
def test_what_belongs_to_no_slide_is_listed_with_the_remedy(
    files: list[str], masks: list[str], words: tuple[str, ...]
) -> None:
    (problem,) = problems(files, masks)
    assert all(word in problem for word in words)


def test_files_without_a_slide_come_last() -> None:
    assert [pair.title for pair in paired(uploads("0_mask.png", "b.png", "a.png"), [])] == [
        "a.png",
        "b.png",
        "0_mask.png",
    ]


def test_another_file_makes_another_key() -> None:
    slide, mask = uploads("a.png", "a_mask.png")
    key = Pair("a", slide, mask).key
    assert key == Pair("a", slide, mask).key
    assert len({key, Pair("a", slide, None).key, Pair("a", Upload("a.png", b"", "new"), mask).key}) == 3


def test_the_size_is_in_megabytes() -> None:
    assert megabytes([Upload("a", bytes(2**20), "")] * 3) == 3
