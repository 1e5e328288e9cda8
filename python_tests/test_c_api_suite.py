"""The C interface's own tests, csrc/tests/c_api, plain and under sanitizers, with emulated CUDA."""

import re
from dataclasses import dataclass

import pytest
from build_tools import SOURCE
from native_tests import build, require_googletest, run_google_tests, symbols_of_archive

pytestmark = pytest.mark.compiles

SUITE = SOURCE / "csrc/tests/c_api"


@dataclass(frozen=True)
class Way:
    """One way to build the tests."""

    sanitize: str
    cuda: str
    programs: tuple
    hook: str  # the beginning of what the compiler has every access call


WAYS = {
    "plain": Way("", "EMULATED", ("c_api_tests", "allocation_tests", "c_api_device_tests"), ""),
    "asan": Way(
        "address,undefined",
        "EMULATED",
        ("c_api_tests", "allocation_tests", "c_api_device_tests"),
        "__asan_report_",
    ),
    "tsan": Way("thread", "OFF", ("c_api_tests",), "__tsan_read"),
}


@pytest.fixture(scope="session")
def builds(built_once):
    """A function that builds the tests in one of the ways, once, and returns the folder."""
    require_googletest()

    def folder_of(name):
        way = WAYS[name]
        options = [f"-DMIPRUNER_CUDA={way.cuda}", f"-DMIPRUNER_TESTS_SANITIZE={way.sanitize}"]
        if way.sanitize:
            options.append("-DCMAKE_BUILD_TYPE=None")
        return built_once(f"c_api_{name}", lambda to: build("csrc/tests/c_api", to, *options))

    return folder_of


def suites_of(program):
    """The test suites of a program, by its sources."""
    alone = {"allocation_tests": ["allocation"], "c_api_tests": ["cpu_only"]}
    files = alone.get(program, ["device"])
    if program != "allocation_tests":
        apart = {"allocation_test.cpp", "cpu_only_test.cpp", "device_test.cpp"}
        files = [*files, *(f.name[:-9] for f in SUITE.glob("*_test.cpp") if f.name not in apart)]
    text = "".join((SUITE / f"{name}_test.cpp").read_text() for name in files)
    return set(re.findall(r"^TEST(?:_[FP])?\((\w+),", text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "program"), [(name, program) for name, way in WAYS.items() for program in way.programs]
)
def test_suite(builds, way, program, tmp_path):
    ran = run_google_tests(builds(way) / program, tmp_path / "report.json")
    assert {re.sub(r"^.*/", "", suite) for suite in ran} == suites_of(program)


@pytest.mark.slow
@pytest.mark.parametrize("way", [name for name, way in WAYS.items() if way.hook])
def test_the_library_is_sanitized_as_well(builds, way):
    symbols = symbols_of_archive(builds(way) / "mipruner/libmipruner.a")
    assert any(symbol.startswith(WAYS[way].hook) for symbol in symbols)
