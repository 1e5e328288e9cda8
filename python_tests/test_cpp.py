"""Programs that have this project as a part of their own, by add_subdirectory: the core from C++,
and the C interface."""

import re

import pytest
from build_tools import SOURCE, output, tool
from consumers import C_ROWS

pytestmark = pytest.mark.compiles


@pytest.fixture(scope="module")
def programs(built_once):
    """The folder of somebody else's programs."""

    def build(folder):
        # On the processor alone: compiling all CUDA kernels once more would show nothing new.
        source = SOURCE / "csrc/tests/consumer"
        output(tool("cmake"), "-S", source, "-B", folder, "-DMIPRUNER_CUDA=OFF")
        output(tool("cmake"), "--build", folder, "--parallel", 2)

    return built_once("consumer", build)


def test_a_program_links_the_core(programs):
    # Rows 2 and 5 name a word each; of the others, which tie, the lowest.
    assert output(programs / "keep_rows").split() == ["0", "2", "5"]


@pytest.mark.parametrize("library", ["mipruner", "static"])
def test_a_program_in_c_links_the_library(programs, library):
    assert output(programs / f"keep_rows_{library}") == C_ROWS


def test_bad_input_is_refused_and_nothing_is_written(programs):
    lines = [line.split(" | ") for line in output(programs / "bad_input").splitlines()]
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
