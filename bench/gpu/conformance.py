"""Part `conformance`: every wrapper of csrc/cuda/common does what its comment says."""

import os
import shutil

from gpu.session import ROOT, Failed, NotAvailable, Outcome, find_cuda_tool

CSRC = ROOT / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-Wno-unknown-pragmas"]
SOURCES = [CSRC / "tests/conformance.cu", CSRC / "core/status.cpp"]


def conformance(session):
    program = session.scratch / "conformance"
    compiled = session.run(*(emulated(program) if session.dry else native(session, program)))
    if compiled.code != 0:
        raise Failed(f"compiling: {compiled.last_line()}")
    done = session.run(program)
    lines = done.output.splitlines()
    passed = [line for line in lines if line.startswith("ok ")]
    failed = [line for line in lines if line.startswith("FAILED ")]
    if done.code != 0 or failed or not passed:
        raise Failed(failed[0] if failed else f"the program: {done.last_line()}", {"lines": lines})
    where = "against the emulator, " if session.dry else ""
    return Outcome(f"{where}{len(passed)} checks passed", {"lines": lines})


def native(session, program):
    nvcc = find_cuda_tool("nvcc")
    if nvcc is None:
        raise NotAvailable("nvcc was not found")
    return [
        nvcc, "-std=c++17", f"-arch=sm_{session.architecture}", "-I", CSRC, *SOURCES, "-o", program,
    ]  # fmt: skip


def emulated(program):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NotAvailable("g++ was not found")
    checker = {"checker", "hooks"}  # only for kernels that are instrumented
    emulator = [f for f in sorted((CSRC / "tests/emu").glob("*.cpp")) if f.stem not in checker]
    kernel, *others = SOURCES
    return [
        compiler, "-std=c++17", "-O1", *WARNINGS, "-I", CSRC, "-I", CSRC / "tests",
        "-x", "c++", kernel, "-x", "none", *others, *emulator, "-o", program,
    ]  # fmt: skip
