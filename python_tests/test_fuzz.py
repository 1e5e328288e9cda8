"""Rounds of libFuzzer for the C interface and for reading GGUF headers: csrc/tests/fuzz."""

import re

import pytest
from build_tools import SOURCE, environment, run
from native_tests import SANITIZED, build, require_fuzzer

pytestmark = pytest.mark.compiles
# Inputs that are tried: as many as a processor gets through in about 15 seconds.
RUNS = {"c_api_fuzz": 20_000, "gguf_header_fuzz": 150_000}


def corpus(target):
    return SOURCE / "csrc/tests/fuzz/corpus" / target.removesuffix("_fuzz")


@pytest.fixture(scope="module")
def programs(built_once):
    require_fuzzer()
    options = ("-DCMAKE_CXX_COMPILER=clang++",)
    return built_once("fuzz", lambda folder: build("csrc/tests/fuzz", folder, *options))


def fuzz(program, *arguments):
    return run(program, *arguments, env=environment(**SANITIZED))


@pytest.mark.parametrize("target", RUNS)
def test_seeds_do_no_harm(programs, target):
    seeds = list(corpus(target).iterdir())
    done = fuzz(programs / target, "-runs=0", corpus(target))
    assert done.returncode == 0, done.stderr
    (files,) = re.findall(r"seed corpus: files: (\d+)", done.stderr)
    assert int(files) == len(seeds) > 10


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNS)
def test_many_inputs_do_no_harm(programs, target, tmp_path):
    (tmp_path / "found").mkdir()
    done = fuzz(
        programs / target, f"-runs={RUNS[target]}", "-print_final_stats=1", "-max_len=600",
        "-len_control=0", f"-artifact_prefix={tmp_path}/", tmp_path / "found", corpus(target),
    )  # fmt: skip
    # A finding ends with the input that it takes, in base64.
    assert done.returncode == 0, done.stderr[-10000:]
    (executions,) = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert int(executions) >= RUNS[target]
