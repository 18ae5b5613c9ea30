"""The audit page: what a person must see, in which order, and that nothing in it is taken for markup."""

import re

import numpy as np
import pytest

from doctogres.cleaning import audit
from doctogres.cleaning.cohort import clean_cohort
from doctogres.cleaning.decisions import Decision
from doctogres.cleaning.pictures import Pictures
from doctogres.settings import CleanSettings
from tests.cleaning.drawn_slides import write_slide


@pytest.fixture
def page(cohort, slides):
    """Two slides for review, two repaired, and what a person decided about three."""
    labels = (cohort / "train_labels.csv").read_text().replace(",a", ",<script>a").replace(",b", ",b & c")
    (cohort / "train_labels.csv").write_text(labels)
    write_slide(cohort, "img_0010", slides["img_0010"][0], np.ones_like(slides["img_0010"][1]))
    write_slide(cohort, "img_0001", slides["img_0001"][0], slides["img_0002"][1])
    (cohort / "train_data/mask_0004.png").unlink()
    given = {
        "img_0001": Decision("keep", "<b>mine</b>"),
        "img_0007": Decision("drop"),
        "img_0020": Decision("keep", 'says "Fiona"'),
    }
    return clean_cohort(cohort, CleanSettings(slime="repair"), seed=7, decisions=given).audit_html


def card(page, slide):
    return re.findall(rf'<article data-slide="{slide}">.*?</article>', page, re.DOTALL)[0]


def test_what_needs_a_person_comes_first(page):
    order = re.findall(r'<article data-slide="(\w+)">', page)
    assert order == [
        *("img_0010", "img_0002"),  # review: full_mask, same_mask
        *("img_0022", "img_0023"),  # repaired
        *("img_0021", "img_0007", "img_0004"),  # dropped: cartoon_twin, decision, missing_mask
        *("img_0001", "img_0020"),  # kept, by decision
    ]
    headings = re.findall(r"<h2>(\w[^<]*?) ?(?:<span>(\d+)</span>)?</h2>", page)
    assert [(name, count) for name, count in headings if count] == [
        ("For review", "2"),
        ("Repaired", "2"),
        ("Dropped", "3"),
        ("Kept, with a remark", "2"),
    ]


def test_a_slide_stands_beside_its_twin_with_the_measured_reason(page):
    shown = card(page, "img_0022")
    assert re.findall(r'<img alt="(\w+)"', shown) == ["img_0022", "img_0005"]
    assert re.search(r"splat: \d\.\d\d% of the picture; \d+ of \d+ lesion pixels would remain", shown)
    assert "the twin's label is b &amp; c" in shown
    assert "twin's label" not in card(page, "img_0020")  # both are of class a
    assert "img_0004: no picture available" in card(page, "img_0004")
    assert "3 groups of slides with identical masks" in page


def test_manual_decisions_are_shown_beside_the_automatic_outcome(page):
    shown = card(page, "img_0020")
    assert "Manual decision: keep (says &#34;Fiona&#34;)." in shown
    assert "Automatic outcome: dropped, <code>cartoon_twin</code>: its mask is byte for byte that of img_0000" in shown
    assert re.search(r'value="keep" checked', shown)
    assert "<strong>3</strong> manual decisions" in page


def test_only_possible_decisions_are_offered(page):
    offered = {slide: re.findall(r'type="radio" name="\S+" value="(\w*)"', card(page, slide)) for slide in ORDER}
    assert offered == {
        "img_0002": ["", "keep", "drop"],
        "img_0004": ["", "drop"],
        "img_0021": ["", "keep", "drop"],
        "img_0022": ["", "keep", "drop", "repair"],
    }


ORDER = ("img_0002", "img_0004", "img_0021", "img_0022")


def test_the_page_stands_alone_and_takes_no_text_for_markup(page):
    assert "://" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;a" in page
    assert "<b>mine" not in page
    assert page.count("<fieldset hidden>") == page.count("<article")  # without the script no dead controls


def test_a_cohort_without_a_finding_says_so(cohort):
    for number in range(20, 24):
        for part in ("img", "mask"):
            (cohort / f"train_data/{part}_{number:04}.png").unlink()
    lines = (cohort / "train_labels.csv").read_text().splitlines()[:15]
    (cohort / "train_labels.csv").write_text("\n".join(lines))
    result = clean_cohort(cohort, CleanSettings(), seed=7)
    assert "All slides were kept." in result.audit_html
    assert "<article" not in result.audit_html
    assert result.decisions.empty
    assert result.twins.empty


def test_a_long_page_is_cut_and_says_so_but_keeps_every_decision(cohort, monkeypatch):
    monkeypatch.setattr(audit, "MOST_CARDS", 2)
    names = [f"img_{number:04d}" for number in (3, 5, 6, 8, 9)]
    for name in names:
        (cohort / f"train_data/mask_{name[4:]}.png").unlink()
    result = clean_cohort(cohort, CleanSettings(), seed=7, decisions={"img_0009": Decision("drop", "no mask")})
    page = result.audit_html
    assert "<strong>2 of 4 slides are shown.</strong> decisions.csv of this run has a row for every one." in page
    assert "missing_mask</code> <span>4</span>" in page
    shown = re.findall(r'<article data-slide="(\w+)">', page)
    assert set(names) & set(shown) == {"img_0003", "img_0005", "img_0009"}
    assert set(names) <= set(result.decisions["slide_id"])


def test_the_page_is_made_piece_by_piece_and_holds_one_picture_at_a_time(cohort, monkeypatch):
    read, thumbnail = [], Pictures.thumbnail

    def noted(self, slide):
        read.append(slide)
        return thumbnail(self, slide)

    monkeypatch.setattr(Pictures, "thumbnail", noted)
    result = clean_cohort(cohort, CleanSettings(slime="repair"), seed=7)
    shown = 0
    for piece in result.audit():
        shown += piece.count("<figure>")
        assert len(read) <= shown + 2  # a slide and its twin
    assert len(read) == shown > 2
