"""What all parts of a check share: the device, a scratch folder, and running other programs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"


class Failed(Exception):
    """The part ran and something was wrong; `data` is what it found out before."""

    def __init__(self, message, data=None):
        super().__init__(message)
        self.data = data or {}


class NotAvailable(Exception):
    """The machine lacks what the part needs. No pass, and no failure either."""


@dataclass
class Outcome:
    summary: str
    data: dict = field(default_factory=dict)


@dataclass
class Result:
    code: int | None  # None: it was stopped at its time limit
    output: str

    def objects(self):
        """The JSON objects that the program printed, one per line."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines if line.endswith("}")]

    def last_line(self):
        return (self.output.strip().splitlines() or ["no output"])[-1]


@dataclass
class Session:
    device: str  # "cuda", or "cpu" for the dry run
    scratch: Path
    log: TextIO
    commit: str | None = None
    package: Path | None = None  # what `build` built; None: the installed package
    architecture: str | None = None  # of the device, as CMake spells it: "90"
    part_ends: float = float("inf")  # on time.monotonic(), the end of the running part's budget

    @property
    def dry(self):
        return self.device == "cpu"

    def seconds_left(self):
        return max(1.0, self.part_ends - time.monotonic())

    def run(self, *command, seconds=None, **environment):
        """Runs a program to its end or the part's, output to the log too. Never raises."""
        command = [str(part) for part in command]
        limit = min(seconds or float("inf"), self.seconds_left())
        output = self.scratch / "output.txt"
        with output.open("w") as sink:
            process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=self.scratch,  # not the source tree, whose package may not be built
                env={**os.environ, **{k: str(v) for k, v in environment.items()}},
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it started
                process.wait()
                code = None
        text = output.read_text(errors="replace")
        ending = f"stopped after {limit:.0f} s" if code is None else f"exit code {code}"
        self.log.write(f"$ {' '.join(command)}\n{text}\n[{ending}]\n\n")
        self.log.flush()
        return Result(code, text)

    def python(self, *arguments, prefix=(), **options):
        """Runs Python with the package under test and this folder's parts in reach."""
        folders = [BENCH, *([self.package] if self.package else [])]
        paths = [str(folder) for folder in reversed(folders)]
        if os.environ.get("PYTHONPATH"):
            paths.append(os.environ["PYTHONPATH"])
        options = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": 1, **options}
        return self.run(*prefix, sys.executable, *arguments, **options)


def find_cuda_tool(name):
    """A program of the CUDA toolkit: on the PATH, or in the toolkit's own folders."""
    found = shutil.which(name)
    if found:
        return found
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    nvcc = shutil.which("nvcc")
    if nvcc:
        homes.insert(0, Path(nvcc).resolve().parents[1])
    folders = [Path(home) / part for home in homes if home for part in ("bin", "compute-sanitizer")]
    return next((str(f / name) for f in folders if os.access(f / name, os.X_OK)), None)
