"""Fixtures for the tests against the real llama.cpp. `make test-llama` fetches and builds it.

MIPRUNER_LLAMA_SOURCE   a folder of llama.cpp's source (its vocabulary files are read)
MIPRUNER_LLAMA_CHECKS   the folder that csrc/tests/llama_cpp was built in
"""

import os
from pathlib import Path

import pytest
from checks import list_tests
from models import write_models
from table import Table

# Memory that malloc hands out is zero, in every program that a test starts. llama.cpp's graph for
# pixtral "clears" its row breaks by multiplying what happens to be in memory with 0, and where that
# is no number, every logit is none: about once in 150 runs.
os.environ["MALLOC_PERTURB_"] = "255"

_DEFAULTS = Path(__file__).resolve().parents[2] / ".venv" / "llama.cpp"


def _folder(variable: str, default: str, holds: str) -> Path:
    folder = Path(os.environ.get(variable, _DEFAULTS / default))
    if not (folder / holds).exists():
        raise pytest.UsageError(
            f"{variable}: {folder} has no {holds}; `make test-llama` fetches and builds it"
        )
    return folder


def _checks() -> Path:
    return _folder("MIPRUNER_LLAMA_CHECKS", "checks", "llama_checks")


def pytest_generate_tests(metafunc):
    """One pytest test for every test of the GoogleTest program."""
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", list_tests(_checks() / "llama_checks"))


@pytest.fixture(scope="session")
def llama_source() -> Path:
    return _folder("MIPRUNER_LLAMA_SOURCE", "source", "models")


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the programs built from csrc/tests/llama_cpp."""
    return _checks()


@pytest.fixture(scope="session")
def models(tmp_path_factory, llama_source, programs) -> Path:
    """The folder of all models, written once."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, llama_source, programs / "quantize")
    return folder


_table = pytest.StashKey[Table]()


def pytest_configure(config):
    config.stash[_table] = Table()


@pytest.fixture(scope="session")
def table(request) -> Table:
    """What the run has measured, for README."""
    return request.config.stash[_table]


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[_table].lines()
    if lines:
        terminalreporter.section("measured against llama.cpp")
        for line in lines:
            terminalreporter.write_line(line)
