"""One thin command per MLflow entry point: parse, call one function of `doctogres.stages`, print one line of JSON.

MLflow's environments hold the requirements but not the project itself, so its `src` is put on the path here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
