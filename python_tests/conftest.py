"""Settings that all tests share."""

import pytest
import torch
from hypothesis import settings
from kernels import LEVELS, at_level

# Derandomised: a run's outcome depends on the tree alone. No deadline: test machines are often
# busy.
settings.register_profile("mipruner", derandomize=True, deadline=None, print_blob=True)
# Other examples every time, and many more: python -m pytest --hypothesis-profile=thorough
settings.register_profile("thorough", derandomize=False, deadline=None, max_examples=1500)
settings.load_profile("mipruner")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=LEVELS)
def level(request):
    """Runs the test once per CPU level of this machine, for the kernels called through `_C`."""
    with at_level(request.param):
        yield request.param
