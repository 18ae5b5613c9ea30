"""From what was measured on the slides to what happens to each; no picture is needed for that."""

from dataclasses import replace
from typing import Any

import pytest

from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.outcome import Outcome, decide, merged_groups, rare_classes
from doctogres.settings import CleanSettings
from doctogres.slides.plausibility import MaskFit
from doctogres.slides.reasons import Reason
from doctogres.slides.tissue import TissueColour

TISSUE = TissueColour("tissue", stain_share=0.95, coloured_share=0.8, hue=320, saturation=0.3, inside_share=0.4)
CARTOON = replace(TISSUE, kind="cartoon", stain_share=0.05, hue=100)
DOUBTFUL = replace(TISSUE, kind="unsure", stain_share=0.5)


def measured(slide: str, **found: Any) -> Evidence:
    """A genuine slide with files of its own, but for what is given."""
    own: dict[str, Any] = {"image_md5": f"image of {slide}", "mask_md5": f"mask of {slide}", "colour": TISSUE}
    return Evidence(slide, width=100, height=100, **own | {"lesion_pixels": 500, "lesion_left": 500} | found)


def decided(*slides: Evidence, labels: str = "", slime: str = "drop", **settings: Any) -> dict[str, Outcome]:
    """The outcomes; a letter of `labels` for each slide."""
    given = {found.slide_id: label for found, label in zip(slides, labels or "a" * len(slides), strict=True)}
    chosen = CleanSettings.model_validate({"slime": slime, **settings})
    return decide({found.slide_id: found for found in slides}, {}, given, chosen)[0]


def told(outcome: Outcome) -> tuple[str, str | None, str | None]:
    return outcome.outcome, Reason.of(outcome.reason) if outcome.reason else None, outcome.twin_of


@pytest.mark.parametrize("shared", ["mask", "picture"])
def test_slides_of_tissue_that_share_one_file_are_for_review_and_name_each_other(shared: str) -> None:
    field = "mask_md5" if shared == "mask" else "image_md5"
    found = decided(*(measured(slide, **{field: "same"}) for slide in "xyz"), measured("w"))
    assert told(found["x"]) == ("review", f"same_{shared}", "y")
    assert told(found["y"]) == told(found["z"]) == ("review", f"same_{shared}", "x")
    assert "of x, z" in found["y"].reason
    assert found["w"] == Outcome()
    pair = decided(*(measured(slide, **{field: "same"}) for slide in "xy"))
    assert {outcome.outcome for outcome in pair.values()} == {"review"}


def test_of_copies_with_one_label_the_first_stays_and_with_two_labels_a_person_looks() -> None:
    copies = [measured(slide, image_md5="same", mask_md5="same") for slide in "xyz"]
    found = decided(*copies)
    assert found["x"] == Outcome()
    assert told(found["y"]) == told(found["z"]) == ("dropped", "duplicate", "x")
    assert {outcome.outcome for outcome in decided(*copies, labels="aab").values()} == {"review"}


def test_cartoons_go_and_the_tissue_with_their_mask_stays() -> None:
    twins = [measured(slide, mask_md5="same", colour=CARTOON) for slide in "xz"]
    found = decided(twins[0], measured("y", mask_md5="same"), twins[1])
    assert found["y"] == Outcome()
    assert told(found["x"]) == told(found["z"]) == ("dropped", "cartoon_twin", "y")


@pytest.mark.parametrize(
    "colours", [(TISSUE, CARTOON, DOUBTFUL), (CARTOON, CARTOON, CARTOON), (TISSUE, CARTOON, None), (DOUBTFUL,) * 3]
)
def test_twins_whose_colours_do_not_decide_lose_nobody(colours: tuple[TissueColour | None, ...]) -> None:
    twins = [measured(slide, mask_md5="same", colour=colour) for slide, colour in zip("xyz", colours, strict=True)]
    found = decided(*twins)
    assert told(found["x"]) == ("review", "twin_unsure", "y")
    assert told(found["y"]) == told(found["z"]) == ("review", "twin_unsure", "x")
    assert "of y, z" in found["x"].reason


def test_one_cartoon_alone_is_dropped_and_a_cohort_of_another_stain_is_not() -> None:
    genuine = [measured(f"g{number}") for number in range(7)]
    odd = [measured(f"c{number}", colour=CARTOON) for number in range(4)]
    assert told(decided(odd[0], measured("g"))["c0"]) == ("dropped", "cartoon", None)
    few = decided(*genuine, *odd[:3])
    assert {few[one.slide_id].outcome for one in odd[:3]} == {"dropped"}
    many = decided(*genuine, *odd)
    assert {told(many[one.slide_id])[:2] for one in odd} == {("review", "stain")}
    assert "4 of 11 slides" in many["c0"].reason
    assert {many[one.slide_id] for one in genuine} == {Outcome()}


def test_colours_that_are_neither_are_for_review_where_there_is_enough_colour_to_tell() -> None:
    faint = replace(DOUBTFUL, coloured_share=0.0)
    found = decided(measured("x", colour=DOUBTFUL), measured("y", colour=faint), measured("z"))
    assert told(found["x"]) == ("review", "colour", None)
    assert found["y"] == found["z"] == Outcome()


def test_masks_that_cannot_mark_lesions() -> None:
    found = decided(
        measured("empty", lesion_pixels=0),
        measured("full", fit=MaskFit(share=0.91)),
        measured("large", fit=MaskFit(share=0.9)),
        measured("beside", fit=MaskFit(on_glass=0.7, turned="rotated by 180 degrees", turned_on_glass=0.1)),
        measured("nowhere", fit=MaskFit(on_glass=0.7)),
        measured("rim", fit=MaskFit(on_glass=0.5)),
        measured("unread", reason=Reason.EMPTY_MASK.because(slide="unread")),
    )
    assert {slide: told(outcome)[:2] for slide, outcome in found.items()} == {
        "empty": ("dropped", "empty_mask"),
        "full": ("review", "full_mask"),
        "large": ("kept", None),
        "beside": ("review", "mask_on_glass"),
        "nowhere": ("review", "mask_on_glass"),
        "rim": ("kept", None),
        "unread": ("dropped", "empty_mask"),
    }
    assert "rotated by 180 degrees, it would be 10%" in found["beside"].reason
    assert "rotated" not in found["nowhere"].reason


@pytest.mark.parametrize(
    ("slime", "left", "outcome", "words"),
    [
        ("drop", 400, "dropped", ""),
        ("keep", 400, "kept", "kept because of slime=keep"),
        ("repair", 300, "repaired", "300 lesion pixels remain"),
        ("repair", 299, "dropped", "299 lesion pixels remain (min_lesion is 300)"),
    ],
)
def test_the_policy_for_a_splat_and_its_reason(slime: str, left: int, outcome: str, words: str) -> None:
    slide = measured("x", splat_share=0.04, splat_in_mask=1.0, lesion_left=left)
    found = decided(slide, measured("y"), slime=slime, min_lesion=300)
    assert told(found["x"]) == (outcome, "slime", None)
    assert words in found["x"].reason
    assert found["y"] == Outcome()


def test_a_class_needs_two_groups_to_be_trained_and_tested() -> None:
    labels = {"v": "often", "w": "often", "x": "rare", "y": "rare", "z": "once"}
    groups = {"v": "1", "w": "2", "x": "3", "y": "3", "z": "4"}
    reasons = rare_classes(labels, groups)
    assert reasons.keys() == {"rare", "once"}
    assert Reason.of(reasons["rare"]) == "rare_class"


def test_slides_that_are_joined_and_all_of_their_patients_stay_together() -> None:
    given = {"a": "p2", "b": "p2", "c": "p1", "d": "p3"}
    assert merged_groups("abcdef", given, [("b", "c"), ("e", "f")]) == {
        "a": "p1", "b": "p1", "c": "p1", "d": "p3", "e": "e", "f": "e",
    }  # fmt: skip
    assert merged_groups("abc", {}, [("a", "b"), ("b", "c")]) == dict.fromkeys("abc", "a")
