"""`python -m benchmarks.memory FOLDER`: peak memory of cleaning 300 and 3,000 slides.

The cohorts are drawn by `doctogres.synthetic` into FOLDER the first time (about 2 GB; minutes) and kept there. Each
measurement is a fresh process, and the highest of its resident sizes is Linux's own (VmHWM).
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

SLIDES: Final = (300, 3000)  # of the training part, which is what cleaning reads
TRAINING_SHARE: Final = 0.8
SEED: Final = 7


def cohort_of(folder: Path, slides: int) -> Path:
    """The cohort with that many training slides, drawn unless it is there."""
    from doctogres.synthetic import make_cohort

    root = folder / f"slides-{slides}"
    if not root.is_dir():
        make_cohort(root, slides=round(slides / TRAINING_SHARE), seed=SEED)
    return root


def peak_after_cleaning(root: Path) -> None:
    """Prints MiB before cleaning (libraries loaded), the peak after it, and the slides; run in a process of its own."""
    from doctogres.cleaning.cohort import clean_cohort
    from doctogres.settings import CleanSettings

    before = peak_mib()
    result = clean_cohort(root, CleanSettings(), seed=SEED)
    print(before, peak_mib(), len(result.table), len(result.audit_html) / 2**20)


def peak_mib() -> float:
    """The highest resident size of this process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the cohorts are, or are drawn")
    parser.add_argument("--measure", action="store_true", help="measure cleaning the cohort FOLDER in this process")
    given = parser.parse_args()
    if given.measure:
        peak_after_cleaning(given.folder)
        return
    print("| slides | MiB before | MiB at the peak | of these the audit page |\n|---|---|---|---|")
    for slides in SLIDES:
        root = cohort_of(given.folder, slides)
        command = [sys.executable, "-m", "benchmarks.memory", str(root), "--measure"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        before, peak, found, page = (float(number) for number in shown)
        print(f"| {found:.0f} | {before:.0f} | {peak:.0f} | {page:.1f} |", flush=True)


if __name__ == "__main__":
    main()
