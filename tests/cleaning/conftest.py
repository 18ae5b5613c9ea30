"""A cohort of drawn slides."""

import pytest

from tests.cleaning.drawn_slides import STAINS, draw_cartoon, draw_splat, draw_tissue, write_slide


@pytest.fixture(scope="session")
def slides():
    """Fourteen genuine slides of all stains, by name."""
    stains = list(STAINS)
    return {f"img_{i:04}": draw_tissue(i, stain=stains[i % 4]) for i in range(14)}


@pytest.fixture
def cohort(tmp_path, slides):
    """Two classes, 14 genuine slides; cartoons 20 (of 0) and 21 (of 3); splats 22 (of 5) and 23 (of 6)."""
    root = tmp_path / "cohort"
    (root / "train_data").mkdir(parents=True)
    rows = dict(slides)
    rows["img_0020"] = (draw_cartoon(slides["img_0000"][0]), slides["img_0000"][1])
    rows["img_0021"] = (draw_cartoon(slides["img_0003"][0]), slides["img_0003"][1])
    rows["img_0022"] = draw_splat(*slides["img_0005"])
    rows["img_0023"] = draw_splat(*slides["img_0006"], centre=(400, 300))
    lines = ["sample_index,label"]
    for index, (slide, (rgb, mask)) in enumerate(rows.items()):
        write_slide(root, slide, rgb, mask)
        lines.append(f"{slide}.png,{'ab'[index % 2]}")
    (root / "train_labels.csv").write_text("\n".join(lines))
    return root
