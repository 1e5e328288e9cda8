"""Prints what study.py measured, as Markdown.

    python bench/quality/study_tables.py                   # every model and part
    python bench/quality/study_tables.py --split final     # of the scans that were kept aside

Accuracy is exact match in percent. "ours minus it" is the difference to the library's defaults on
the same questions with its 95 % interval (paired bootstrap over scenes, bootstrap.py).
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from bootstrap import interval
from exam import Exam, draw_exam
from methods import Ours
from study import RESULTS, SEED
from study_parts import (
    CONTENDERS,
    COVERAGES,
    KEEPS,
    PARTS,
    REDUNDANCIES,
    SPREAD,
    TEMPERATURES,
    TIGHT,
    Run,
)  # fmt: skip
from study_store import Entry, Result, Store
from world import STRESS

from mi_pruner_cuda.reference import ESTIMATORS


class Measured:
    """One model on the exam of one part."""

    def __init__(self, store: Store, head: Entry, exam: Exam):
        self.head, self.exam, self.part = head, exam, PARTS[head.part]
        self._store = store
        families = exam.families()
        self.families = {str(name): families == name for name in dict.fromkeys(families)}
        everything = {"all": np.ones(len(exam), bool)}
        if head.world == "study":
            stress = {name: np.isin(families, own) for name, own in STRESS.items()}
            self.groups = everything | stress
        else:
            self.groups = everything | self.families

    def __contains__(self, run: Run) -> bool:
        return self._store.holds(self.head.of(run))

    def __getitem__(self, run: Run) -> Result:
        return self._store[self.head.of(run)]

    def runs(self) -> dict[str, dict[float, Run]]:
        """Name of the method -> keep -> run, in the order of the part."""
        found: dict[str, dict[float, Run]] = {}
        for run in self.part.runs:
            if run.method is not None:
                name = run.name + (", renumbered" if run.positions == "renumbered" else "")
                found.setdefault(name, {})[run.keep] = run
        return found

    def accuracy(self, run: Run, group: str = "all") -> float:
        """In percent; NaN where it was not measured."""
        where = self.groups[group] if group in self.groups else self.families[group]
        return 100 * self[run].right[where].mean() if run in self else np.nan

    def recall(self, run: Run) -> float:
        """In percent."""
        return 100 * float(np.nanmean(self[run].recall))

    def gain(self, run: Run, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Ours minus it for each question of the group, in percent; and the question's scene."""
        ours = self[ours_at(run.keep)]
        where = self.groups[group]
        gain = 100 * (ours.right[where].astype(float) - self[run].right[where])
        return gain, self.exam.scene_of[where]


def lead(found: list[Measured], run: Run, group: str) -> tuple[float, float, float]:
    """Ours minus it over all questions of all models, in percent, and the ends of its interval."""
    gains, scenes, known = [], [], 0
    for measured in found:
        gain, scene = measured.gain(run, group)
        gains.append(gain)
        scenes.append(scene + known)  # what one scene is to two models counts as two
        known += len(measured.exam.scenes)
    gain = np.concatenate(gains)
    low, high = interval(gain, np.concatenate(scenes))
    return float(gain.mean()), low, high


def ours_at(keep: float) -> Run:
    """What the others are compared with."""
    return Run(Ours(), keep)


def rows_of(table: list[list[str]]) -> str:
    """Markdown; the first row is the heading."""
    head, *body = table
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def by_keep(found: list[Measured]) -> str:
    """Accuracy of every method at every budget: of one model, or the mean of several."""
    table = [["chosen by", *(f"{100 * keep:g} %" for keep in KEEPS)]]
    for name, own in found[0].runs().items():
        means = (np.mean([measured.accuracy(own[keep]) for measured in found]) for keep in KEEPS)
        table.append([name, *map(percent, means)])
    return rows_of(table)


def by_group(found: list[Measured], keep: float, methods: tuple[Ours, ...] = ()) -> str:
    """Accuracy and ours minus it per group of families, and recall, at one budget: of one model, or
    the mean of several; of all methods of the part, or of some."""
    table = [["chosen by", "patches found", *found[0].groups]]
    for name, own in found[0].runs().items():
        run = own[keep]
        if methods and run.method not in methods:
            continue
        if any(run not in measured for measured in found):
            continue
        line = [name, percent(np.mean([measured.recall(run) for measured in found]))]
        for group in found[0].groups:
            cell = percent(np.mean([measured.accuracy(run, group) for measured in found]))
            if run != ours_at(keep) and all(ours_at(keep) in measured for measured in found):
                mean, low, high = lead(found, run, group)
                cell += f" ({mean:+.1f}: {low:+.1f} to {high:+.1f})"
            line.append(cell)
        table.append(line)
    return rows_of(table)


def describe_all(found: list[Measured]) -> str:
    """What several models have in common: the mean over them of the same part."""
    names = ", ".join(measured.head.model for measured in found)
    lines = [f"## {found[0].head.part}, mean of {names}"]
    if found[0].head.part == "options":
        return "\n\n".join([*lines, options(found)])
    if found[0].head.part != "critics":
        lines.append(by_keep(found))
    for keep in TIGHT:
        lines.append(f"### {100 * keep:g} % kept: accuracy (ours minus it: interval)")
        lines.append(by_group(found, keep))
    return "\n\n".join(lines)


def by_family(measured: Measured, runs: dict[str, dict[float, Run]], keep: float) -> str:
    """Accuracy per family at one budget."""
    table = [["chosen by", *measured.families]]
    for name, own in runs.items():
        cells = (percent(measured.accuracy(own[keep], family)) for family in measured.families)
        table.append([name, *cells])
    return rows_of(table)


def options(found: list[Measured]) -> str:
    """Estimators with temperatures and redundancies; coverage with redundancies. The mean of the
    models."""
    parts = []
    for keep in TIGHT:
        kept = f"{100 * keep:g} %"
        for estimator in ESTIMATORS:
            rows = {f"{t:g}": {"estimator": estimator, "temperature": t, "coverage": 0.0}
                    for t in TEMPERATURES}  # fmt: skip
            parts.append(by_redundancy(found, keep, f"{estimator}, {kept}: temperature", rows))
        rows = {f"{c:g}": {"coverage": c} for c in COVERAGES}
        parts.append(by_redundancy(found, keep, f"{kept}: coverage", rows))
        rows = {estimator: {"estimator": estimator, "coverage": SPREAD} for estimator in ESTIMATORS}
        head = f"{kept}, coverage {SPREAD:g}: estimator"
        parts.append(by_redundancy(found, keep, head, rows))
        parts.append(f"### {kept} kept: accuracy (ours minus it: interval)")
        parts.append(by_group(found, keep, (Ours(), *CONTENDERS)))
    return "\n\n".join(parts)


def by_redundancy(found: list[Measured], keep: float, head: str, rows: dict[str, dict]) -> str:
    """Accuracy of Ours: a line per set of options, a column per redundancy."""
    table = [[head, *(f"redundancy {r:g}" for r in REDUNDANCIES)]]
    for name, own in rows.items():
        runs = [Run(Ours(redundancy=r, **own), keep) for r in REDUNDANCIES]
        means = [np.mean([measured.accuracy(run) for measured in found]) for run in runs]
        table.append([name, *map(percent, means)])
    return rows_of(table)


def describe(measured: Measured) -> str:
    """All tables of one model and part."""
    head = measured.head
    lines = [
        f"## {head.model}, {head.part}",
        f"{len(measured.exam)} questions ({head.per_family} of each family) about "
        f'{len(measured.exam.scenes)} scenes of the scans "{head.split}", seed {head.seed}.',
    ]
    if Run(None) in measured:
        whole = [f"{g} {percent(measured.accuracy(Run(None), g))}" for g in measured.groups]
        lines.append("All tokens: " + ", ".join(whole) + ".")
    if head.part == "options":
        return "\n\n".join([*lines, options([measured])])
    runs = measured.runs()
    if head.part != "critics":
        lines.append(by_keep([measured]))
    for keep in TIGHT:
        lines.append(f"### {100 * keep:g} % kept: accuracy (ours minus it: interval)")
        lines.append(by_group([measured], keep))
        lines.append(by_family(measured, runs, keep))
    return "\n\n".join(lines)


def check_results(parser: argparse.ArgumentParser, folder: pathlib.Path) -> None:
    if not any(folder.glob("*.jsonl")):
        parser.error(f"--results: there are no .jsonl files in {folder}; study.py writes them")


def measured_in(folder: pathlib.Path, split: str, seed: int) -> Iterator[Measured]:
    """Every model and part of which something was measured."""
    heads = {}
    for path in sorted(folder.glob("*.jsonl")):
        store = Store(path)
        for entry, _ in store:
            if (entry.split, entry.seed) == (split, seed):
                head = dataclasses.replace(entry, method="", keep=1.0, positions="original")
                heads[head] = store
    order = list(PARTS)
    for head in sorted(heads, key=lambda h: (order.index(h.part), h.model, h.per_family)):
        exam = draw_exam(head.world, head.split, head.seed, head.per_family)
        yield Measured(heads[head], head, exam)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("study", "final"), default="study")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="study.py's --output")
    args = parser.parse_args()
    check_results(parser, args.results)
    found = list(measured_in(args.results, args.split, args.seed))
    for part in PARTS:
        # Of each model in the study's world, the largest exam.
        of_model = {
            m.head.model: m for m in found if (m.head.part, m.head.world) == (part, "study")
        }
        if len(of_model) > 1:
            print(describe_all(list(of_model.values())), end="\n\n")
    for measured in found:
        print(describe(measured), end="\n\n")


if __name__ == "__main__":
    main()
