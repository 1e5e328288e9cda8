"""A minute of libFuzzer each for the C interface and for reading GGUF headers: csrc/tests/fuzz."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from build_tools import SOURCE, environment, run
from native_tests import SANITIZED, build, require_clang

TARGETS = ["c_api_fuzz", "gguf_header_fuzz"]
SECONDS = 60
# Far below what any machine gets through in a minute; what hangs or starts over stays below.
FEWEST_EXECUTIONS = 2000


def corpus(target):
    return SOURCE / "csrc/tests/fuzz/corpus" / target.removesuffix("_fuzz")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    require_clang()
    folder = tmp_path_factory.mktemp("fuzz")
    build("csrc/tests/fuzz", folder, "-DCMAKE_CXX_COMPILER=clang++")
    return folder


def fuzz(program, *arguments):
    return run(program, *arguments, env=environment(**SANITIZED))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_do_no_harm(programs, target):
    seeds = list(corpus(target).iterdir())
    done = fuzz(programs / target, "-runs=0", corpus(target))
    assert done.returncode == 0, done.stderr
    (files,) = re.findall(r"seed corpus: files: (\d+)", done.stderr)
    assert int(files) == len(seeds) > 10


@pytest.fixture(scope="module")
def minutes(programs, tmp_path_factory):
    """What each target said after its minute; all of them ran at once."""
    folder = tmp_path_factory.mktemp("found")

    def one(target):
        found = folder / target
        found.mkdir()
        return fuzz(
            programs / target, f"-max_total_time={SECONDS}", "-print_final_stats=1",
            "-max_len=600", "-len_control=0", f"-artifact_prefix={folder}/", found, corpus(target),
        )  # fmt: skip

    with ThreadPoolExecutor(len(TARGETS)) as pool:
        return dict(zip(TARGETS, pool.map(one, TARGETS), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_finds_nothing(minutes, target):
    done = minutes[target]
    # A finding ends with the input that it takes, in base64.
    assert done.returncode == 0, done.stderr[-10000:]
    (executions,) = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert int(executions) > FEWEST_EXECUTIONS
