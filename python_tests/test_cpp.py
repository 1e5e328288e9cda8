"""The core from C++: a program that knows only csrc and CMake, as README describes it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The program's cmake, or the one that `pip install cmake` put beside this interpreter.
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder of somebody else's programs that link the core."""
    build = tmp_path_factory.mktemp("consumer")
    # On the processor alone: compiling all CUDA kernels once more would show nothing new.
    run(CMAKE, "-S", str(ROOT / "csrc/tests/consumer"), "-B", str(build), "-DMIPRUNER_CUDA=OFF")
    run(CMAKE, "--build", str(build), "--parallel", "2")
    return build


def test_a_program_links_the_core(programs):
    # Rows 2 and 5 name a word each; of the others, which tie, the lowest.
    assert run(str(programs / "keep_rows")).split() == ["0", "2", "5"]


def test_bad_input_is_refused_and_nothing_is_written(programs):
    lines = [line.split(" | ") for line in run(str(programs / "bad_input")).splitlines()]
    said = {name: (message, outputs) for name, message, outputs in lines}
    assert said.pop("right but for nothing") == ("no error", "written")
    expected = {
        "workspace too small": r"workspace: got \d+ bytes, allowed are \d+ or more",
        "no workspace": r"workspace: got 0 bytes, allowed are \d+ or more",
        "workspace misaligned": "workspace: got a pointer that is not 64-byte aligned",
        "mixed devices": "text: got device cuda, allowed is that of visual, cpu",
        "a device that the build does not know": "device: got a CUDA tensor, but this build has no",
    }
    assert said.keys() == expected.keys()
    for name, pattern in expected.items():
        message, outputs = said[name]
        assert re.match(pattern, message), (name, message)
        assert outputs == "untouched", name
