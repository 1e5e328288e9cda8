"""What the study measured: one line of JSON per run, appended, never rewritten."""

import dataclasses
import json
import math
import os
import pathlib

import numpy as np
from study_parts import Run


@dataclasses.dataclass(frozen=True)
class Entry:
    """Which run of which model on which exam. Equal entries have equal results."""

    part: str
    model: str
    world: str
    split: str
    seed: int
    per_family: int
    method: str = ""
    keep: float = 1.0
    positions: str = "original"

    def of(self, run: Run) -> "Entry":
        return dataclasses.replace(self, method=run.name, keep=run.keep, positions=run.positions)


@dataclasses.dataclass(frozen=True)
class Result:
    """right: bool (Q); recall: float64 (Q), NaN where a question asks about no object."""

    right: np.ndarray
    recall: np.ndarray


class Store:
    """A file of runs.

    Args:
        path: .jsonl; made when the first run is added. A last line that was cut off by a kill is
            measured anew.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._found: dict[Entry, Result] = {}
        self._whole = 0  # bytes up to the end of the last whole line
        if path.exists():
            self._read()

    def __iter__(self):
        return iter(self._found.items())

    def holds(self, entry: Entry) -> bool:
        return entry in self._found

    def __getitem__(self, entry: Entry) -> Result:
        return self._found[entry]

    def add(self, entry: Entry, right: np.ndarray, recall: np.ndarray) -> None:
        line = dataclasses.asdict(entry)
        line["right"] = "".join("01"[int(hit)] for hit in right)
        line["recall"] = [None if math.isnan(r) else round(float(r), 3) for r in recall]
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.seek(self._whole)
            file.truncate()
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._whole = file.tell()
        self._found[entry] = _result(line)

    def _read(self) -> None:
        names = [field.name for field in dataclasses.fields(Entry)]
        for line in self._path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            content = json.loads(line)
            self._found[Entry(*(content[name] for name in names))] = _result(content)
            self._whole += len(line)


def _result(line: dict) -> Result:
    right = np.array([hit == "1" for hit in line["right"]])
    return Result(right, np.array([math.nan if r is None else r for r in line["recall"]]))
