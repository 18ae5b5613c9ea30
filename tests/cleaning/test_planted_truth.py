"""Cartoons and splats whose place is known: every one is found, with its genuine twin, and nothing else is."""

import csv
from pathlib import Path

import numpy as np
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.engine import map_slides
from doctogres.settings import CleanSettings
from doctogres.slides.images import encode_png
from doctogres.slides.reasons import Reason
from doctogres.slides.table import KEPT
from doctogres.synthetic import LABELS, make_cohort
from doctogres.synthetic import slide as generator
from doctogres.synthetic.cartoon import with_cartoon
from tests.stores import made_once

PAIRS = 60
PARTS = ("genuine", "cartoon", "mask")


def planted(root):
    """The planted truth of a generated cohort: kind and genuine twin of every spoiled slide."""
    with (root / "contaminated.csv").open(newline="") as file:
        return {Path(row["sample_index"]).stem: (row["kind"], Path(row["twin"]).stem) for row in csv.DictReader(file)}


def found(result):
    """What cleaning says about every slide that is not plainly kept: kind by reason, and the genuine twin."""
    kinds = {"cartoon_twin": "shrek", "cartoon": "shrek", "slime": "slime"}
    table = result.table[(result.table["outcome"] != KEPT) | (result.table["reason"] != "")]
    codes = table["reason"].map(Reason.of)
    return {
        slide: (kinds.get(code, code), twin)
        for slide, code, twin in zip(table["slide_id"], codes, table["twin_of"], strict=True)
    }


def draw_pair(seed):
    """A small genuine slide, the cartoon in its tissue's silhouette, and the mask of both, as PNG files."""
    rng = np.random.default_rng(seed)
    drawn = generator.draw_slide(rng, LABELS[seed % len(LABELS)])
    cartoon = with_cartoon(rng, drawn.picture, drawn.depth)
    return encode_png(drawn.picture), encode_png(cartoon), encode_png(drawn.mask)


@pytest.fixture(scope="module")
def pairs(request):
    """(cartoon, genuine) ids of the `--twins` list, or 60 pairs of shuffled numbers."""
    if listed := request.config.getoption("--twins"):
        with Path(listed).open(newline="") as file:
            return [(f"img_{row['shrek_id']}", f"img_{row['clean_twin_id']}") for row in csv.DictReader(file)]
    numbers = np.random.default_rng(0).permutation(2 * PAIRS).reshape(PAIRS, 2).tolist()
    return [(f"img_{cartoon:04}", f"img_{genuine:04}") for cartoon, genuine in numbers]


@pytest.fixture(scope="module")
def drawings(pairs, tmp_path_factory):
    """The files of every pair; drawn at a quarter of the generator's usual area."""

    def make(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generator, "SHORT_SIDE", (280, 320))
            patch.setattr(generator, "LONG_SIDE", (380, 561))
            for number, files in enumerate(map_slides(draw_pair, range(len(pairs)))):
                for part, content in zip(PARTS, files, strict=True):
                    (folder / f"{part}_{number}.png").write_bytes(content)

    folder = made_once(tmp_path_factory, "pairs", make)
    return [[(folder / f"{part}_{number}.png").read_bytes() for part in PARTS] for number in range(len(pairs))]


@pytest.fixture(params=["as listed", "exchanged"])
def twins(request, tmp_path, pairs, drawings):
    """A cohort of nothing but pairs, and the genuine twin of every cartoon; once with the files exchanged."""
    data = tmp_path / "train_data"
    data.mkdir()
    genuine_of = dict(pairs if request.param == "as listed" else [pair[::-1] for pair in pairs])
    labels = ["sample_index,label"]
    for index, (cartoon, genuine) in enumerate(genuine_of.items()):
        tissue, drawing, mask = drawings[index]
        for slide, picture in ((genuine, tissue), (cartoon, drawing)):
            (data / f"{slide}.png").write_bytes(picture)
            (data / f"{slide.replace('img', 'mask')}.png").write_bytes(mask)
        labels += [f"{genuine}.png,{LABELS[index % len(LABELS)]}", f"{cartoon}.png,{LABELS[index // 15 % len(LABELS)]}"]
    (tmp_path / "train_labels.csv").write_text("\n".join(labels))
    return tmp_path, genuine_of


def test_of_every_twin_pair_the_genuine_slide_stays_and_exactly_the_cartoon_is_dropped(twins):
    root, genuine_of = twins
    assert 0.3 < np.mean([cartoon < genuine for cartoon, genuine in genuine_of.items()]) < 0.7
    table = clean_cohort(root, CleanSettings(), seed=7).table.set_index("slide_id")
    assert set(table.index) == {slide for pair in genuine_of.items() for slide in pair}
    kept = table[table["outcome"] == KEPT]
    assert sorted(kept.index) == sorted(genuine_of.values())
    assert set(kept["reason"]) == {""}
    others = table.drop(kept.index)
    assert set(others["outcome"]) == {"dropped"}
    assert set(others["reason"].map(Reason.of)) == {"cartoon_twin"}
    assert dict(others["twin_of"]) == genuine_of


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 11, 23, 101])
def test_the_demo_s_cartoons_and_splats_are_found_with_their_twins_and_nothing_else(tmp_path, seed):
    make_cohort(tmp_path / "demo", slides=60, seed=seed)
    assert found(clean_cohort(tmp_path / "demo", CleanSettings(), seed=7)) == planted(tmp_path / "demo")
