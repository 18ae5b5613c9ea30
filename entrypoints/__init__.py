"""One thin command per MLflow entry point: parses, calls one function of `doctogres.stages`, prints one line of JSON.

MLflow's environments contain the requirements but not the project itself, so its `src` is put on the path here.
"""

import os
import sys
from pathlib import Path

# torch's threads busy-wait for each other: if other work occupies a core, a step takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doctogres.telemetry import switch_off

switch_off()
