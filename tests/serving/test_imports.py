"""What the served model may import: its environment has less than the project's."""

import subprocess
import sys

from tests.servers import ROOT

# The last is there, but only a server that gives metrics needs it.
MISSING = ["accelerate", "captum", "lion_pytorch", "optuna", "pdqhash", "psycopg", "prometheus_client"]
PROBE = f"import sys; sys.modules.update(dict.fromkeys({MISSING})); import doctogres.serving.pyfunc"


def test_the_served_models_code_needs_no_library_that_its_environment_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
