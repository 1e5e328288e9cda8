"""Builds C++ test programs with CMake, plain or under the compilers' sanitizers, and runs them."""

import json
import os
import platform
import shutil
from pathlib import Path

from build_tools import SOURCE, environment, output, require, run, tool

SANITIZED = {
    # The suites ask for more memory than there is. That has to come back as a null pointer, as it
    # does without sanitizers, instead of ending the program.
    "ASAN_OPTIONS": "allocator_may_return_null=1",
    "TSAN_OPTIONS": "allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def require_clang():
    require(shutil.which("clang++"), "clang")


def has_header(compiler, header):
    """Wherever the compiler finds it."""
    asked = run(tool(compiler), "-E", "-x", "c++", "-include", header, os.devnull)
    return asked.returncode == 0


def require_fuzzer():
    require_clang()
    # Apart from clang, in a package that has the compiler's version in its name.
    version = output(tool("clang++"), "-dumpversion").partition(".")[0]
    header = "fuzzer/FuzzedDataProvider.h"
    require(has_header("clang++", header), f"libclang-rt-{version}-dev")


def require_googletest():
    require(has_header("c++", "gtest/gtest.h"), "libgtest-dev")


def build(folder, target, *options):
    """Builds the CMake project of a folder of the source tree in `target`."""
    output(tool("cmake"), "-S", SOURCE / folder, "-B", target, *options, env=environment())
    output(tool("cmake"), "--build", target, "--parallel", 2, env=environment())


def symbols_of_archive(file):
    return output(tool("nm"), file).split()


def run_google_tests(program, report):
    """Runs a GoogleTest program, all of which has to pass; returns the names of its suites."""
    command = [program, f"--gtest_output=json:{report}", "--gtest_brief=1"]
    done = run(*command, env=environment(**SANITIZED))
    if "unexpected memory mapping" in done.stderr:
        # ThreadSanitizer before gcc 14 and clang 18 does not start where the kernel randomises more
        # bits of an address (vm.mmap_rnd_bits) than it has reckoned with: without any, it does.
        done = run("setarch", platform.machine(), "-R", *command, env=environment(**SANITIZED))
    assert done.returncode == 0, done.stdout + done.stderr
    suites = json.loads(Path(report).read_text())["testsuites"]
    results = [test["result"] for suite in suites for test in suite["testsuite"]]
    assert results and set(results) == {"COMPLETED"}, "some were skipped"
    return [suite["name"] for suite in suites]
