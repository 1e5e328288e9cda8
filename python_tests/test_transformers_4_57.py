"""attach on the oldest transformers that is supported, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# `make test` installs it there, beside and apart from the environment's own version.
OLDEST = HERE.parent / ".venv" / "transformers-4.57"


def test_smoke():
    assert OLDEST.is_dir(), "transformers 4.57 is not installed; `make test` does it"
    done = subprocess.run(
        [sys.executable, str(HERE / "smoke_transformers_4_57.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(OLDEST), str(HERE)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "transformers 4.57" in done.stdout
