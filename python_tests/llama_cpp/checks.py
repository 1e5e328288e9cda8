"""The GoogleTest program of csrc/tests/llama_cpp, one test at a time."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 120  # a test takes a few; beyond that it hangs


@dataclass
class Outcome:
    """How one test ended.

    passed: whether it ran and every expectation held.
    properties: what it wrote down, by name.
    output: what it printed.
    """

    passed: bool
    properties: dict[str, str]
    output: str


def list_tests(program: Path) -> list[str]:
    """The names of all tests, as --gtest_filter takes them."""
    done = subprocess.run(
        [str(program), "--gtest_list_tests"], capture_output=True, text=True, check=True
    )
    names, suite = [], ""
    for line in done.stdout.splitlines():
        name = line.split("#")[0].rstrip()
        if not name.startswith(" "):
            suite = name
        else:
            names.append(suite + name.strip())
    return [name for name in names if "." in name]


def run_test(program: Path, models: Path, name: str, report: Path) -> Outcome:
    """Runs one test in a process of its own, so that an abort is the failure of that test."""
    done = subprocess.run(
        [str(program), f"--gtest_filter={name}", f"--gtest_output=json:{report}"],
        capture_output=True, text=True, check=False, timeout=_SECONDS,
        env={**os.environ, "MIPRUNER_LLAMA_MODELS": str(models)},
    )  # fmt: skip
    output = f"{done.stdout}{done.stderr}exit status {done.returncode}"
    if not report.exists():  # the process died
        return Outcome(False, {}, output)
    suites = json.loads(report.read_text())["testsuites"]
    tests = [test for suite in suites for test in suite["testsuite"]]
    ran = len(tests) == 1 and tests[0]["result"] == "COMPLETED"
    return Outcome(ran and done.returncode == 0, tests[0] if ran else {}, output)
