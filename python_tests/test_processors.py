"""python_tests/processors, in a process that has torchvision: processors of videos need it, and
Pixtral's. It is apart, since not every torch here has a torchvision that goes with it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# `make test` installs it there.
TORCHVISION = HERE.parent / ".venv" / "torchvision"


@pytest.mark.slow
def test_with_torchvision():
    assert TORCHVISION.is_dir(), "torchvision is not installed; `make test` does it"
    path = os.pathsep.join(map(str, (TORCHVISION, HERE, HERE / "processors")))
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "torchvision_without_kernels", "-p",
            "no:cacheprovider", str(HERE / "processors"),
        ],
        env={**os.environ, "PYTHONPATH": path},
        cwd=HERE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 190
    assert "skipped" not in done.stdout
