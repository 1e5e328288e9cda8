"""Builds programs of emulated kernels: csrc/tests/cuda_cases, beside the CPU backend, and parts.

Objects and programs live in a temporary folder for as long as the tests run; each is compiled when
a test first asks for it.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
CXX = shutil.which("g++")
# ccache, as the Makefile tells CMake too: what was compiled before is not compiled again.
LAUNCHER = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER", "").split()
JOBS = 2

KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
CASES = sorted((CSRC / "tests/cuda_cases").glob("*.cpp"))
# All of the CPU backend but the choice among its levels, which the cases make themselves.
CPU_SOURCES = [
    *(source for source in sorted((CSRC / "cpu").glob("*.cpp")) if source.stem != "dispatch"),
    *(CSRC / "cpu/simd/kernels.cpp", CSRC / "core/executor.cpp", CSRC / "core/status.cpp"),
]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
BASE = ["-std=c++17", "-fno-pie"]
# Kernels look at memory as vectors of 16 bytes, which nvcc allows.
EMULATED = ["-x", "c++", "-Wno-unknown-pragmas", "-fno-strict-aliasing"]
NO_FUNCTION_HOOKS = ["--param", "tsan-instrument-func-entry-exit=0"]
ASAN = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


@dataclass
class Mode:
    """One way to build. Only kernels are instrumented for the checker, whose hooks see accesses."""

    kernels: list[str]
    others: list[str]
    link: list[str]
    checker: str  # the emulator's file that judges accesses, or the one that ignores them


MODES = {
    "plain": Mode(["-O2"], ["-O2"], [], "unchecked"),
    "checked": Mode(
        ["-O1", "-g", "-fsanitize=thread", *NO_FUNCTION_HOOKS, "-fno-omit-frame-pointer"],
        ["-O2"],
        [],
        "checker",
    ),
    "sanitized": Mode(ASAN, ASAN, ASAN, "unchecked"),
}
ORDERS = {"forward": 0, "backward": 1, "random": 2}


def run(*command, timeout=1800):
    """A time for what hangs, far from what the slowest of machines takes."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def in_parallel(work, items):
    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(work, items))


def compile_object(source, target, *flags, includes=()):
    """Folders in `includes` come before the project's own."""
    folders = [f"-I{folder}" for folder in (*includes, CSRC, CSRC / "tests")]
    done = run(*LAUNCHER, CXX, *BASE, *folders, *flags, "-c", source, "-o", target)
    assert done.returncode == 0, f"{source}:\n{done.stderr}"
    return target


def emulator_sources(mode):
    judges = {"checker", "unchecked"} - {MODES[mode].checker}
    return [s for s in sorted((CSRC / "tests/emu").glob("*.cpp")) if s.stem not in judges]


def link_objects(target, mode, objects):
    done = run(CXX, "-no-pie", *MODES[mode].link, *objects, "-o", target)
    assert done.returncode == 0, done.stderr
    return target


class Builder:
    def __init__(self):
        self._temporary = tempfile.TemporaryDirectory(prefix="cuda_cases_")
        self.folder = Path(self._temporary.name)

    def _compile(self, prefix, flags, sources):
        def one(source):
            return compile_object(source, self.folder / f"{prefix}_{source.stem}.o", *flags)

        return dict(zip(sources, in_parallel(one, sources), strict=True))

    @functools.cached_property
    def cpu_objects(self):
        # Not in the way of the kernels' sanitizers: this code has tests of its own.
        flags = ["-O2", "-Wno-psabi", "-DMIPRUNER_LEVEL=baseline"]
        return self._compile("cpu", flags, CPU_SOURCES)

    @functools.cache  # noqa: B019 (one builder lives as long as the process)
    def kernel_objects(self, mode):
        return self._compile(mode, [*EMULATED, *WARNINGS, *MODES[mode].kernels], KERNELS)

    @functools.cache  # noqa: B019
    def other_objects(self, mode):
        flags = [*WARNINGS, *MODES[mode].others]
        cases = self._compile(f"{mode}_cases", flags, CASES)
        return cases | self._compile(f"{mode}_emu", flags, emulator_sources(mode))

    def link(self, target, mode, kernels):
        objects = [*kernels, *self.other_objects(mode).values(), *self.cpu_objects.values()]
        return link_objects(target, mode, objects)

    @functools.cache  # noqa: B019
    def program(self, mode):
        kernels = self.kernel_objects(mode).values()
        return self.link(self.folder / f"cases_{mode}", mode, kernels)


@functools.cache
def builder():
    return Builder()
