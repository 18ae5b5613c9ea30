"""What `main` says of its time before it begins, measured on this cohort and this machine."""

from doctogres.disk import free_space, size_text
from doctogres.files import workspace
from doctogres.planning.cohort import Found
from doctogres.planning.estimate import Estimate, Promised, estimate
from doctogres.planning.sample import Sample, sample_slides
from doctogres.planning.speed import measure_speed, pace
from doctogres.progress import durations, place
from doctogres.settings import Preset
from doctogres.training.sources import chosen_views


def promise(found: Found, preset: Preset) -> tuple[Promised, list[str]]:
    """Measures a few slides and patches.

    Args:
        found: the cohort.
        preset: that was chosen for it.

    Raises:
        ParameterError: a view that the model is to see is not cut.

    Returns:
        Recipe -> stage -> seconds, empty if no slide that was tried can be used; and what to say, in lines.
    """
    sample = sample_slides(found, preset)
    if sample is None:
        return {}, ["how long it takes is not known: none of the slides that were tried can be used"]
    chosen_views(preset.train, preset.patch)  # refuses a view that is not cut
    with place("main: measuring"):
        speeds = measure_speed(preset, sample, found.cohort)
    expected = estimate(preset, found.cohort, sample, speeds, pace())
    return expected.seconds, told(expected, sample, free_space(workspace()))


def told(expected: Estimate, sample: Sample, free: int) -> list[str]:
    """What is expected, in lines: the time, the patches, and whether the disk holds them.

    Args:
        expected: of the pipeline.
        sample: that it was measured on.
        free: bytes on the workspace's disk.
    """
    recipes = list(expected.seconds.values())
    stages = ", ".join(f"{stage} {durations([of[stage] for of in recipes])}" for stage in recipes[0])
    total = durations([sum(of.values()) for of in recipes])
    by_recipe = f", by the recipe that the study chooses ({' or '.join(expected.seconds)})" if len(recipes) > 1 else ""
    patches = " and ".join(f"{count} patches of {view}" for view, count in expected.patches.items())
    width, height = sample.size
    lines = [
        f"about {total}{by_recipe}, on this machine as busy as it is now: {stages}",
        f"measured on {sample.slides} slides (median {width} x {height} px) and {len(sample.pixels)} of their patches; about "
        f"{patches}, which take {size_text(expected.nbytes)} in the workspace",
    ]
    if expected.nbytes > free:
        lines.append(
            f"warning: only {size_text(free)} are free there; make room, or name another folder with DOCTOGRES_WORKSPACE"
        )
    return lines
