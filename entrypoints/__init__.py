"""One thin command per MLflow entry point: parse, call one function of `doctogres.stages`, print one line of JSON.

MLflow's environments hold the requirements but not the project itself, so its `src` is put on the path here.
"""

import os
import sys
from pathlib import Path

# torch's threads wait for each other by spinning: where other work holds a core, a step takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
