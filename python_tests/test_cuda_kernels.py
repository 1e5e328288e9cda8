"""The CUDA kernels without a GPU: emulated, against the CPU backend.

csrc/tests/cuda_cases runs random cases of the kernels' own text under csrc/tests/emu: 2,100 of them
in the plain build, half of which score and select, and fewer in the builds that check
every access.
"""

import pytest
from cuda_builder import CXX, ORDERS, builder, run

pytestmark = pytest.mark.compiles

COUNTS = {"plain": 700, "checked": 60, "sanitized": 50}  # cases in each order of threads


@pytest.mark.skipif(not CXX, reason="g++ is not on the PATH")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", COUNTS)
def test_kernels_agree_with_the_cpu(mode, order):
    number = ORDERS[order]
    arguments = ("--order", number, "--seed", 10 + number, "--count", COUNTS[mode])
    done = run(builder().program(mode), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
