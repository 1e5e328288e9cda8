"""The llama.cpp door, csrc/llama, against a fake of llama.cpp, plain and under sanitizers.

The tests themselves are csrc/tests/llama, with GoogleTest. Against the real llama.cpp:
`make test-llama`.
"""

import re

import pytest
from build_tools import SOURCE, output, run, tool
from native_tests import build, require_clang, require_googletest

pytestmark = pytest.mark.compiles

SUITES = {
    "door_tests": [
        "ByteSource",
        "DecodeImage",
        "EvalChunks",
        "GgufHeader",
        "Positions",
        "RowLayout",
        "TokenTable",
    ],
    "door_tests_old_mtmd": ["DecodeImage", "EvalChunks"],
}
HEADERS = SOURCE / "csrc/llama"


@pytest.fixture(scope="session", params=["", "address,undefined"], ids=["plain", "sanitized"])
def programs(request, built_once):
    """The folder of the tests, built once for each way to build them."""
    require_googletest()
    options = [f"-DMIPRUNER_TESTS_SANITIZE={request.param}"]
    if request.param:
        options.append("-DCMAKE_BUILD_TYPE=None")
    name = f"llama_door_{'sanitized' if request.param else 'plain'}"
    return built_once(name, lambda to: build("csrc/tests/llama", to, *options))


@pytest.mark.parametrize("program", SUITES)
def test_suite(programs, program):
    done = run(programs / program)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    ran = re.findall(r"^\[ +OK \] (\w+)\.\w+", report, re.MULTILINE)
    assert sorted(set(ran)) == SUITES[program]
    # Nothing was left out, and nothing reported itself as skipped or failed.
    counts = re.findall(r"(\d+) tests? from \d+ test suites? ran\.", report)
    assert counts == [str(len(ran))]
    assert re.findall(r"^\[  PASSED  \] (\d+) tests?\.$", report, re.MULTILINE) == counts


def check_syntax(compiler, standard, header, source):
    """Compiles a file that includes the header first, and twice, with warnings as errors."""
    source.write_text(f'#include "{header}"\n' * 2)
    output(
        tool(compiler), f"-std={standard}", "-Wall", "-Wextra", "-Wshadow", "-Wconversion",
        "-Werror", "-fsyntax-only", source,
        "-I", HEADERS, "-I", SOURCE / "csrc/include", "-I", SOURCE / "csrc/tests/llama/fake",
    )  # fmt: skip


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_hosts_compile_it_without_warnings(compiler, standard, tmp_path):
    if compiler == "clang++":
        require_clang()
    check_syntax(compiler, standard, "mipruner_llama.hpp", tmp_path / "host.cpp")


@pytest.mark.parametrize("header", sorted(f.name for f in HEADERS.glob("mipruner_llama/*.hpp")))
def test_each_header_stands_alone(header, tmp_path):
    check_syntax("g++", "c++17", f"mipruner_llama/{header}", tmp_path / "host.cpp")
