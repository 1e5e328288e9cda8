"""The emulator that runs CUDA kernels without a GPU reports wrong programs and no right one."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
CXX = shutil.which("g++")
FLAGS = [
    "-std=c++17",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-fno-pie",
]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# Only kernels are instrumented for the checker, and libtsan is not linked: see emu/hooks.cpp.
INSTRUMENTED = ["-O1", "-g", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"]

# Flags for kernels, for the emulator and for the linker; arguments of the program.
BUILDS = {
    "plain": (["-O2"], ["-O2"], [], ["--right-only"]),
    "checked": (INSTRUMENTED, ["-O2"], [], []),
    "sanitized": (SANITIZERS, SANITIZERS, SANITIZERS, ["--right-only"]),
}


def run(command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def build(kind, folder):
    kernel_flags, flags, link_flags, _ = BUILDS[kind]
    unused = "unchecked" if kind == "checked" else "checker"
    emulator = [s for s in sorted((CSRC / "tests/emu").glob("*.cpp")) if s.stem != unused]
    sources = {CSRC / "tests/emu/self_test.cu": ["-x", "c++", *kernel_flags]}
    sources |= dict.fromkeys([*emulator, CSRC / "core/status.cpp"], flags)

    def compile_object(source):
        target = folder / f"{source.stem}.o"
        include = ["-I", CSRC, "-I", CSRC / "tests"]
        done = run([CXX, *FLAGS, *include, *sources[source], "-c", source, "-o", target])
        assert done.returncode == 0, done.stderr
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_object, sources))
    program = folder / "self_test"
    done = run([CXX, "-no-pie", *link_flags, *objects, "-o", program])
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.skipif(CXX is None, reason="g++ is not on the PATH")
@pytest.mark.parametrize("kind", BUILDS)
def test_programs_are_judged_rightly(kind, tmp_path):
    done = run([build(kind, tmp_path), *BUILDS[kind][-1]])
    assert done.returncode == 0, done.stdout + done.stderr
