"""Settings that all tests share."""

import os

import pytest

# Before torch reads it: of several workers (pytest-xdist), each is to use one processor.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings
from kernels import LEVELS, at_level
from sharing import made_once

# Derandomised: a run's outcome depends on the tree alone. No deadline: test machines are often
# busy.
settings.register_profile("mipruner", derandomize=True, deadline=None, print_blob=True)
# Other examples every time, and many more: python -m pytest --hypothesis-profile=thorough
settings.register_profile("thorough", derandomize=False, deadline=None, max_examples=1500)
settings.load_profile("mipruner")

# The files that take longest, in the order in which workers begin them: what is begun last should
# be short, or one worker waits for the other at the end.
LONGEST_FIRST = [
    "test_cuda_mutants", "test_c_api_suite", "test_cuda_kernels", "test_fuzz", "test_installed",
    "test_build", "test_llama_door", "test_cuda_compile", "test_emulator", "test_processors",
    "test_gpu_check", "test_cpp", "test_html_report", "test_attach_ways",
]  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        place = {name: number for number, name in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def built_once(request, tmp_path_factory):
    """built_once(name, make): a folder of this run's that make(folder) has filled.

    One for all workers, of which the first that asks makes it.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    return lambda name, make: made_once(base / name, make)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=LEVELS)
def level(request):
    """Runs the test once per CPU level of this machine, for the kernels called through `_C`."""
    with at_level(request.param):
        yield request.param
