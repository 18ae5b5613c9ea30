"""How a cohort is divided into Spark's tasks."""

import pytest

from doctogres.records.spark import FEWEST, MOST, slides_per_task, tasks_per_job


@pytest.mark.parametrize(
    ("slides", "cores", "expected"),
    [(5, 2, FEWEST), (1000, 2, 62), (10_000, 2, MOST), (10_000, 100, 12), (1_000_000, 100, MOST)],
)
def test_tasks_are_large_where_cores_have_work_to_the_end_all_the_same(slides: int, cores: int, expected: int) -> None:
    assert slides_per_task(slides, cores) == expected


@pytest.mark.parametrize(("size", "cores", "expected"), [(8, 2, 512), (256, 2, 16), (256, 100, 400), (10_000, 2, 8)])
def test_every_core_has_tasks_in_a_job(size: int, cores: int, expected: int) -> None:
    assert tasks_per_job(size, cores) == expected
