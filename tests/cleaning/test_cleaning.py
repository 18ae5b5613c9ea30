"""A whole cohort through cleaning."""

import hashlib

import numpy as np
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.errors import CohortError
from doctogres.settings import CleanSettings
from doctogres.slides.reasons import Reason
from doctogres.slides.splits import check_no_leakage
from doctogres.slides.table import COLUMNS, CohortTable, usable
from tests.cleaning.drawn_slides import draw_cartoon, write_slide


def rows(result):
    return result.table.set_index("slide_id")


def codes(result):
    table = rows(result)
    return {slide: Reason.of(reason) for slide, reason in table["reason"].items() if reason}


def digests(root):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_planted_cartoons_and_splats_are_found_and_nothing_else(cohort):
    before = digests(cohort)
    result = clean_cohort(cohort, CleanSettings(), seed=7)
    assert codes(result) == {
        "img_0020": "cartoon_twin",
        "img_0021": "cartoon_twin",
        "img_0022": "slime",
        "img_0023": "slime",
    }
    table = rows(result)
    assert dict(table["twin_of"].dropna()) == {
        "img_0020": "img_0000",
        "img_0021": "img_0003",
        "img_0022": "img_0005",
        "img_0023": "img_0006",
    }
    assert result.outcomes == {"kept": 14, "dropped": 4}
    assert list(result.class_shares["slides_after"]) == [7, 7]
    assert table["fold"].isna().sum() == 4
    assert list(result.table.columns) == list(COLUMNS)
    assert digests(cohort) == before


def test_the_genuine_twin_may_come_second(cohort, slides):
    rgb, mask = slides["img_0000"]
    write_slide(cohort, "img_0000", draw_cartoon(rgb), mask)
    write_slide(cohort, "img_0020", rgb, mask)
    result = clean_cohort(cohort, CleanSettings(), seed=7)
    assert codes(result)["img_0000"] == "cartoon_twin"
    assert "img_0020" not in codes(result)


def test_a_mask_beside_the_tissue_is_for_review(cohort, slides):
    rgb, mask = slides["img_0001"]
    beside = mask[::-1, ::-1] & (np.abs(rgb.astype(int) - (190, 190, 188)).max(axis=2) <= 10)
    assert beside.sum() > 100
    write_slide(cohort, "img_0001", rgb, beside)
    reason = rows(clean_cohort(cohort, CleanSettings(), seed=7)).loc["img_0001"]
    assert reason["outcome"] == "review"
    assert reason["reason"].startswith("mask_on_glass: 100%")
    assert "rotated by 180 degrees, it would be" in reason["reason"]


def test_twins_that_both_look_like_tissue_are_for_review(cohort, slides):
    write_slide(cohort, "img_0001", slides["img_0001"][0], slides["img_0002"][1])
    result = clean_cohort(cohort, CleanSettings(), seed=7)
    table = rows(result)
    assert list(table.loc[["img_0001", "img_0002"], "outcome"]) == ["review", "review"]
    assert table.loc["img_0001", "group"] == table.loc["img_0002", "group"]


def test_a_cartoon_without_a_twin_is_dropped_too(cohort):
    (cohort / "train_data/mask_0000.png").unlink()
    assert codes(clean_cohort(cohort, CleanSettings(), seed=7))["img_0020"] == "cartoon"


def test_byte_identical_slides_are_kept_once(cohort, slides):
    write_slide(cohort, "img_0002", *slides["img_0004"])  # labels alternate: both are class a
    result = clean_cohort(cohort, CleanSettings(), seed=7)
    assert codes(result)["img_0004"] == "duplicate"
    assert rows(result).loc["img_0004", "outcome"] == "dropped"
    assert rows(result).loc["img_0002", "outcome"] == "kept"


@pytest.mark.parametrize(("policy", "outcome"), [("drop", "dropped"), ("repair", "repaired"), ("keep", "kept")])
def test_the_policy_decides_about_splats(cohort, policy, outcome):
    result = clean_cohort(cohort, CleanSettings(slime=policy), seed=7)
    table = rows(result)
    assert set(table.loc[["img_0022", "img_0023"], "outcome"]) == {outcome}
    assert "img_0005 is the same slide without it" in table.loc["img_0022", "reason"]
    assert table.loc["img_0022", "group"] == table.loc["img_0005", "group"]
    left = usable(result.table)
    check_no_leakage(left["fold"].tolist(), left["group"].tolist())


def test_a_repaired_slide_needs_enough_lesion(cohort):
    result = clean_cohort(cohort, CleanSettings(slime="repair", min_lesion=10**6), seed=7)
    assert "min_lesion" in rows(result).loc["img_0022", "reason"]
    assert rows(result).loc["img_0022", "outcome"] == "dropped"


def test_every_bad_input_is_named_with_its_reason(cohort, slides):
    data = cohort / "train_data"
    rgb, mask = slides["img_0007"]
    (data / "mask_0001.png").unlink()
    write_slide(cohort, "img_0002", rgb, mask[:-1])
    (data / "img_0004.png").write_bytes((data / "img_0004.png").read_bytes()[:5000])
    (data / "mask_0008.png").write_bytes(b"no picture")
    write_slide(cohort, "img_0009", slides["img_0009"][0], np.zeros_like(mask))
    write_slide(cohort, "img_0010", slides["img_0010"][0], np.ones_like(mask))
    write_slide(cohort, "img_0050", rgb, mask)
    with (cohort / "train_labels.csv").open("a") as labels:
        labels.write("\nimg_0060.png,a\nimg_0011.png,c\nimg_0070.png,lonely\n")
    write_slide(cohort, "img_0070", *slides["img_0012"])
    (data / "img_0012.png").unlink()
    found = codes(clean_cohort(cohort, CleanSettings(), seed=7))
    expected = {
        "img_0001": "missing_mask",
        "img_0002": "size_mismatch",
        "img_0004": "unreadable_image",
        "img_0008": "unreadable_mask",
        "img_0009": "empty_mask",
        "img_0010": "full_mask",
        "img_0011": "conflicting_labels",
        "img_0012": "missing_image",
        "img_0050": "unlabelled",
        "img_0060": "missing_image",
        "img_0070": "rare_class",
    }
    assert {slide: found.get(slide) for slide in expected} == expected


def test_groups_of_the_labels_are_kept_whole(cohort):
    lines = (cohort / "train_labels.csv").read_text().splitlines()
    grouped = ["sample_index,label,group"] + [f"{line},p{index // 4}" for index, line in enumerate(lines[1:])]
    (cohort / "train_labels.csv").write_text("\n".join(grouped))
    left = usable(clean_cohort(cohort, CleanSettings(slime="repair"), seed=7).table)
    check_no_leakage(
        left["fold"].tolist(), [line.split(",")[2] for line in grouped[1:] if line[:8] in set(left["slide_id"])]
    )
    assert left.set_index("slide_id")["group"][["img_0022", "img_0005"]].nunique() == 1


def test_one_worker_equals_two_and_the_table_survives_its_file(cohort, tmp_path):
    first = clean_cohort(cohort, CleanSettings(), seed=7, workers=1)
    calls = []
    second = clean_cohort(cohort, CleanSettings(), seed=7, workers=2, progress=lambda *counts: calls.append(counts))
    assert first.table.equals(second.table)
    assert first.audit_html == second.audit_html
    assert calls[-1] == (18, 18)
    CohortTable(first.table, cohort, "digest").write(tmp_path / "cohort.parquet")
    assert CohortTable.read(tmp_path / "cohort.parquet").rows.equals(first.table)


def test_the_audit_shows_every_slide_that_is_not_plainly_kept(cohort):
    page = clean_cohort(cohort, CleanSettings(), seed=7).audit_html
    for slide in ("img_0020", "img_0021", "img_0022", "img_0023", "img_0000"):
        assert f'alt="{slide}" src="data:image/jpeg;base64,' in page
    assert "img_0001" not in page
    assert "http" not in page


def test_a_cohort_with_nothing_left_says_why(cohort):
    for mask in (cohort / "train_data").glob("mask_*"):
        mask.unlink()
    with pytest.raises(CohortError, match="0 usable slides.*18 missing_mask"):
        clean_cohort(cohort, CleanSettings(), seed=7)
