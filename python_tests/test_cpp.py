"""The core from C++: a program that knows only csrc and CMake, as README describes it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The program's cmake, or the one that `pip install cmake` put beside this interpreter.
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_program_links_the_core(tmp_path):
    build = str(tmp_path / "build")
    # On the processor alone: compiling all CUDA kernels once more would show nothing new.
    run(CMAKE, "-S", str(ROOT / "csrc/tests/consumer"), "-B", build, "-DMIPRUNER_CUDA=OFF")
    run(CMAKE, "--build", build, "--target", "keep_rows", "--parallel")
    # Rows 2 and 5 name a word each; of the others, which tie, the lowest.
    assert run(str(tmp_path / "build/keep_rows")).split() == ["0", "2", "5"]
