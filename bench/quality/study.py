"""Measures how many answers survive pruning: every method, model and budget of the study.

    python bench/quality/study.py                              # all parts, all shipped models
    python bench/quality/study.py --parts rules --models bench/quality/models/study-llava-1
    python bench/quality/study.py --split final                # scans and model kept aside
    python bench/quality/study_tables.py                       # tables of what was measured
    python bench/quality/study_plots.py                        # and pictures

What was measured is appended to a file per model in --output, one line per run, and the same
command goes on from there. Commands for different models may run side by side. Every draw is
seeded.
"""

import argparse
import os
import pathlib
import signal

import numpy as np
import torch
from exam import Exam, draw_exam
from methods import Room
from reader import Reader
from study_critics import fit_critic
from study_parts import PARTS, Run
from study_store import Entry, Store
from tqdm import tqdm
from vlm_batches import COURSES

from mi_pruner_cuda import demo
from mi_pruner_cuda.budget import resolve

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "build" / "study"
MODELS = pathlib.Path(__file__).with_name("models")
ASIDE = MODELS / "aside"  # trained with a seed that decided nothing; for the final scans
SEED = 1  # of scenes and questions


class Study:
    """One model in front of one exam; what is costly is made when a run needs it."""

    def __init__(self, folder: pathlib.Path, world: str, exam: Exam, cache: pathlib.Path):
        self._folder, self._world, self._exam, self._cache = folder, world, exam, cache
        self._room: Room | None = None

    def run(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """bool (Q), right or not; float64 (Q), recall of the asked patches."""
        room = self._prepared(run)
        reader, count = room.reader, len(self._exam)
        n = reader.rows.shape[1]
        if run.method is None:
            kept = np.tile(np.arange(n), (count, 1))
            return reader.answer(kept), self._exam.recall(kept)
        k = resolve(run.keep, n)
        room.draws.manual_seed(SEED)
        kept = np.stack([run.method.choose(room, q, k).numpy() for q in range(count)])
        changed = [run.method.rows(room, q, k) for q in range(count)]
        rows = None if changed[0] is None else torch.stack(changed)
        return reader.answer(kept, run.positions, rows), self._exam.recall(kept)

    def _prepared(self, run: Run) -> Room:
        if self._room is None:
            self._room = Room(Reader(self._folder, self._exam))
        room = self._room
        if run.method is not None and run.method.needs_maps and room.views is None:
            room.views, room.attention = self._maps()
        critic = getattr(run.method, "critic", "")
        if critic and critic not in room.critics:
            model, processor = room.reader.model, room.reader.processor
            room.critics[critic] = fit_critic(model, processor, self._world, critic)
        return room

    def _maps(self):
        """The attention maps, looked at once."""
        if self._cache.exists():
            return torch.load(self._cache, weights_only=False)
        found = self._room.reader.look()
        partial = self._cache.with_suffix(".partial")
        torch.save(found, partial)
        os.replace(partial, self._cache)
        return found


def name_of(folder: pathlib.Path) -> str:
    """What tables call a checkpoint: its folder, or "demo" for the one of the package."""
    return "demo" if folder.resolve() == demo.model_path().resolve() else folder.name


def measure(args) -> None:
    """Every run that the store does not hold yet."""
    for folder in args.models:
        name = name_of(folder)
        store = Store(args.output / f"{name}.jsonl")
        for kind in args.parts:
            part = PARTS[kind]
            per_family = args.per_family or part.per_family
            head = Entry(kind, name, args.world, args.split, args.seed, per_family)
            missing = [run for run in part.runs if not store.holds(head.of(run))]
            if not missing:
                continue
            exam = draw_exam(args.world, args.split, args.seed, per_family)
            cache = args.output / f"maps-{name}-{args.split}-{args.seed}-{per_family}.pt"
            study = Study(folder, args.world, exam, cache)
            for run in tqdm(missing, desc=f"{name} {kind}", unit="run"):
                store.add(head.of(run), *study.run(run))


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models",
        nargs="+",
        type=pathlib.Path,
        help="checkpoints; if absent, all in models/, or in models/aside/ for the final scans",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=", ".join(PARTS))  # fmt: skip
    parser.add_argument(
        "--world", choices=COURSES, default="study", help="demo is that of the shipped demo model"
    )
    parser.add_argument("--split", choices=("study", "final"), default="study", help="of the scans")
    parser.add_argument("--seed", type=int, default=SEED, help="of scenes and questions")
    parser.add_argument("--per-family", type=int, help="questions; each part has its own number")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="a folder")
    args = parser.parse_args(given)
    if args.models is None:
        shipped = MODELS if args.split == "study" else ASIDE
        args.models = sorted(path.parent for path in shipped.glob("*/config.json"))
        if not args.models:
            parser.error(f"--models: got none, and there are none in {shipped}")
    for folder in args.models:
        if not (folder / "config.json").is_file():
            parser.error(f"--models: {folder} holds no config.json")
    if args.per_family is not None and args.per_family < 1:
        parser.error(f"--per-family: got {args.per_family}, allowed is a count >= 1")
    return args


def main() -> None:
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measure(args)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from here") from None


if __name__ == "__main__":
    main()
