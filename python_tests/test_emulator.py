"""The emulator that runs CUDA kernels without a GPU reports wrong programs and no right one."""

import pytest
from cuda_builder import (
    CSRC,
    CXX,
    EMULATED,
    MODES,
    WARNINGS,
    compile_object,
    emulator_sources,
    in_parallel,
    link_objects,
    run,
)

pytestmark = pytest.mark.compiles

# Without the checker only some mistakes show.
ARGUMENTS = {"plain": ["--right-only"], "checked": [], "sanitized": ["--right-only"]}


def build(mode, folder):
    sources = {CSRC / "tests/emu/self_test.cu": [*EMULATED, *MODES[mode].kernels]}
    sources |= dict.fromkeys(
        [*emulator_sources(mode), CSRC / "core/status.cpp"], MODES[mode].others
    )

    def compile_one(source):
        return compile_object(
            source, folder / f"{source.stem}.o", *WARNINGS, "-Wno-unknown-pragmas", *sources[source]
        )

    return link_objects(folder / "self_test", mode, in_parallel(compile_one, sources))


@pytest.mark.skipif(not CXX, reason="g++ is not on the PATH")
@pytest.mark.parametrize("mode", MODES)
def test_programs_are_judged_rightly(mode, tmp_path):
    done = run(build(mode, tmp_path), *ARGUMENTS[mode])
    assert done.returncode == 0, done.stdout + done.stderr
