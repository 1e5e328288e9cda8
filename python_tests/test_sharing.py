"""What processes share is made once and never by two at a time; and no object is reused after a
change to what it was made of."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_builder
import pytest
from build_tools import require
from sharing import alone, made_once

HERE = Path(__file__).resolve().parent
# Writes "in" and "out" to the log, with time between them for another process to come in.
WORKER = """
import sys, time
from pathlib import Path
from sharing import alone, made_once
folder, how = Path(sys.argv[1]), sys.argv[2]
def work(_):
    with open(folder / "log", "a") as log:
        print("in", file=log, flush=True)
        time.sleep(0.2)
        print("out", file=log, flush=True)
if how == "made_once":
    made_once(folder / "made", work)
else:
    with alone(folder / "lock"):
        work(None)
"""


@pytest.mark.parametrize(("how", "times"), [("made_once", 1), ("alone", 3)])
def test_processes_take_turns(tmp_path, how, times):
    command = [sys.executable, "-c", WORKER, str(tmp_path), how]
    workers = [subprocess.Popen(command, env={"PYTHONPATH": str(HERE)}) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0] * 3
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * times


def test_what_failed_is_made_again_from_nothing(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("no space left")

    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            made_once(tmp_path / "build", fail)
    made = made_once(tmp_path / "build", lambda folder: (folder / "whole").touch())
    assert [file.name for file in made.iterdir()] == ["whole"]
    assert made_once(tmp_path / "build", fail) == made


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError), alone(tmp_path / "deep/lock"):
        raise ValueError
    with ThreadPoolExecutor(1) as pool, alone(tmp_path / "deep/lock"):
        waiting = pool.submit(lambda: alone(tmp_path / "deep/lock").__enter__())
        time.sleep(0.1)
        assert not waiting.done()


# ---- ccache ----

FUNCTION = '#include "value.h"\nint value() { return VALUE + ADDED; }\n'
PROGRAM = "int value();\nint main() { return value(); }\n"


@pytest.fixture
def value_of(tmp_path, monkeypatch):
    """Compiles, with ccache and a cache of its own, and runs: what value() returns."""
    require(shutil.which("ccache"), "ccache")
    monkeypatch.setattr(cuda_builder, "LAUNCHER", ["ccache"])
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "function.cpp").write_text(FUNCTION)
    (tmp_path / "main.cpp").write_text(PROGRAM)

    def compiled_and_run(header, *flags):
        (tmp_path / "value.h").write_text(header)
        os.utime(tmp_path / "value.h", (1e9, 1e9))
        objects = [
            cuda_builder.compile_object(tmp_path / f"{name}.cpp", tmp_path / f"{name}.o", *flags)
            for name in ("function", "main")
        ]
        program = cuda_builder.link_objects(tmp_path / "program", "plain", objects)
        return subprocess.run([program], check=False).returncode

    return compiled_and_run


def hits():
    """Of all that this cache was asked for."""
    done = subprocess.run(["ccache", "--print-stats"], capture_output=True, text=True, check=True)
    counts = dict(line.split("\t") for line in done.stdout.splitlines())
    return int(counts["direct_cache_hit"]) + int(counts["preprocessed_cache_hit"])


def test_a_change_is_compiled_and_the_same_again_is_not(value_of):
    """A header that is as long and as old as before, and a flag; then back again."""
    assert value_of("#define VALUE 1\n", "-DADDED=0") == 1
    before = hits()
    assert value_of("#define VALUE 2\n", "-DADDED=0") == 2
    assert value_of("#define VALUE 2\n", "-DADDED=5") == 7
    kept = hits()
    assert value_of("#define VALUE 1\n", "-DADDED=0") == 1
    assert hits() == kept + 2 > before + 2
