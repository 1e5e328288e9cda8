"""Trains the small vision-language models of the demo and of the accuracy study, on a CPU.

    python bench/quality/train_vlm.py                  # both stages, then exports the checkpoint
    python bench/quality/train_vlm.py --export         # only exports what has been trained so far
    python bench/quality/train_vlm.py --world study --architecture qwen --seed 1
    python bench/quality/train_vlm.py --world study --align 0   # rows not aligned with words

Two stages: "dense" teaches the vision tower and the projector what each patch shows (it stands in
for the contrastive pretraining of a real tower), "vlm" trains the whole model on questions, with
all 256 visual rows unless --drop says otherwise. The state is saved every two minutes and the same
command continues from it. README.md beside this file says exactly what each stage supervises.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import vlm_llava
import vlm_qwen
from vlm_batches import COURSES, Batch, make_batch
from vlm_export import export
from vlm_losses import (
    AttentionProbe,
    PatchHeads,
    alignment_loss,
    answer,
    dense_loss,
    grounding_loss,
)
from vlm_prompt import PATCHES, share_picture, words_of

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ARCHITECTURES = {"llava": vlm_llava, "qwen": vlm_qwen}

# What a state is trained with; one of another setting does not continue it. States from before a
# setting existed have its default.
SETTINGS = {
    "seed": 0, "world": "demo", "architecture": "llava", "align": 0.2, "ground": 0.5, "drop": 0.0,
}  # fmt: skip


@dataclasses.dataclass
class Stage:
    """One stage of the training; the learning rate warms up, then falls along a cosine."""

    name: str
    steps: int
    rate: float
    size: int
    questions: int
    vision_rate: float = 1.0  # the vision tower's share of the learning rate


class Trainer:
    """Holds everything that a checkpoint must restore."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.stages = [
            Stage("dense", args.dense_steps, args.dense_rate, args.dense_batch, 0),
            Stage("vlm", args.vlm_steps, args.vlm_rate, args.batch, args.questions, 0.3),
        ]
        saved = self._saved()
        torch.manual_seed(args.seed)
        self.architecture = ARCHITECTURES[args.architecture]
        self.course = COURSES[args.world]
        self.words = words_of(args.world, self.architecture.MARKS)
        self.model = self.architecture.build_model(self.words).to(args.device)
        width = self.model.config.text_config.hidden_size
        self.heads = PatchHeads(width).to(args.device)
        self.probe = AttentionProbe(self.model, (1, 2))
        self.world = self.course.world("train", args.seed)
        self.stage, self.step, self.seconds = 0, 0, [0.0] * len(self.stages)
        self.optimizer, self._restored, self._exam = None, None, None
        self._renderer = ThreadPoolExecutor(1)  # draws the next batch while this one is learned
        self._stop = False
        if saved is not None:
            self._load(saved)

    # A checkpoint needs no generator state: every step draws from a generator seeded by its number.
    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            **{name: getattr(self.args, name) for name in SETTINGS},
        }
        self.args.state.parent.mkdir(parents=True, exist_ok=True)
        partial = self.args.state.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.args.state)  # a kill while saving leaves the previous state whole

    def _ask_to_stop(self, *_) -> None:
        """Lets the step in progress end, so that what is saved is consistent."""
        self._stop = True

    def _saved(self) -> dict | None:
        """The state to continue from, if there is one; it must be of the same settings."""
        if not self.args.state.exists():
            return None
        state = torch.load(self.args.state, map_location=self.args.device, weights_only=True)
        for name, default in SETTINGS.items():
            before, now = state.get(name, default), getattr(self.args, name)
            if before != now:
                raise SystemExit(
                    f"--{name}: got {now}, but {self.args.state} was trained with {before}; give "
                    "that, or another --state"
                )
        return state

    def _load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]
        self._restored = state["optimizer"]

    def run(self) -> None:
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._ask_to_stop) for number in signals]
        try:
            self._run_stages()
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def _run_stages(self) -> None:
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage])
            self.stage, self.step, self.optimizer = self.stage + 1, 0, None
            self.save()

    def _run_stage(self, stage: Stage) -> None:
        self.optimizer = self._make_optimizer(stage)
        if self._restored is not None:
            self.optimizer.load_state_dict(self._restored)
            self._restored = None
        if stage.questions:
            self._shared = self._share(stage.questions)
        bar = tqdm(total=stage.steps, initial=self.step, desc=stage.name, mininterval=10)
        saved, recent = time.monotonic(), {}
        upcoming = self._renderer.submit(self._draw, stage, self.step)
        while self.step < stage.steps:
            begin = time.monotonic()
            batch = upcoming.result().to(self.args.device)
            upcoming = self._renderer.submit(self._draw, stage, self.step + 1)
            for name, value in self._train_step(stage, batch).items():
                recent.setdefault(name, []).append(value)
            self.step += 1
            bar.update()
            now = time.monotonic()
            self.seconds[self.stage] += now - begin
            if self.step % self.args.report_every == 0 or self.step == stage.steps:
                self._report(stage, recent)
                recent = {}
            if now - saved > 120 or self._stop:
                self.save()
                saved = now
            if self._stop:
                raise SystemExit("stopped; the same command continues from here")
        bar.close()

    def _share(self, questions: int):
        return share_picture(self.architecture, self.words, questions, self.args.device)

    def _rows(self, batch: Batch) -> torch.Tensor:
        return self.architecture.visual_rows(self.model, batch.pixels)

    def _make_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        groups = []
        sees = (*self.architecture.seeing(self.model), self.heads)
        reads = (self.model.model.language_model, self.model.lm_head)
        for modules, share in ((sees, stage.vision_rate), (reads, 1.0)):
            weights = [p for module in modules for p in module.parameters()]
            trained = stage.name != "dense" or modules is sees
            for weight in weights:
                weight.requires_grad_(trained)
            if trained:
                for flat, decay in ((False, 0.05), (True, 0.0)):
                    chosen = [weight for weight in weights if (weight.ndim < 2) == flat]
                    groups.append({"params": chosen, "weight_decay": decay, "share": share})
        return torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98))

    def _rate(self, stage: Stage) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        fall = 0.5 + 0.5 * math.cos(math.pi * self.step / stage.steps)
        return stage.rate * warm * (0.02 + 0.98 * fall)

    def _draw(self, stage: Stage, step: int) -> Batch:
        """The batch of one step, from a generator that depends on nothing but the step."""
        rng = np.random.default_rng([self.args.seed, 7, self.stage, step])
        crowded = stage.name == "dense"
        weights = self._mixture(step) if stage.questions else None
        return make_batch(
            self.world, rng, stage.size, stage.questions, crowded, weights, self.course.families
        )

    def _mixture(self, step: int) -> list[float]:
        """Shares of the families at a step of the vlm stage."""
        easy = self.course.first is not None and step < self.args.easy_steps
        return list(self.course.first) if easy else self.args.mixture

    def _train_step(self, stage: Stage, batch: Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(stage) * group["share"]
        loss, report = self._loss(stage, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        return report

    def _loss(self, stage: Stage, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        rows = self._rows(batch)
        dense, report = dense_loss(self.heads, rows, batch)
        report["dense"] = dense.item()
        align = torch.zeros((), device=rows.device)
        if self.args.align:
            align = alignment_loss(self.model, rows, batch)
            report["align"] = align.item()
        if not stage.questions:
            return dense + align, report
        shared = self._shared
        kept = self._kept_rows()
        if kept is not None:
            rows, batch, shared = rows[:, kept], batch.only(kept), shared.only(kept)
        said, hits = answer(self.model, rows, batch, shared)
        ground = grounding_loss(self.probe, batch, shared)
        report.update(answer=said.item(), ground=ground.item(), exact=hits.float().mean().item())
        return said + self.args.ground * ground + 0.2 * dense + self.args.align * align, report

    def _kept_rows(self) -> torch.Tensor | None:
        """Which visual rows the language model sees at this step: a random quarter to all of them
        at a share of the steps, else all (None)."""
        rng = np.random.default_rng([self.args.seed, 8, self.step])
        if rng.random() >= self.args.drop:
            return None
        count = round(PATCHES * rng.uniform(0.25, 1.0))
        kept = np.sort(rng.permutation(PATCHES)[:count])
        return torch.from_numpy(kept).to(self.args.device)

    def _report(self, stage: Stage, recent: dict[str, list[float]]) -> None:
        line = {"stage": stage.name, "step": self.step, "minutes": self.seconds[self.stage] / 60}
        line.update({name: float(np.mean(values)) for name, values in recent.items()})
        line["held_out"] = self.examine()
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
        tqdm.write(json.dumps(rounded), file=sys.stdout)
        sys.stdout.flush()

    @torch.no_grad()
    def examine(self) -> dict[str, float]:
        """Quick accuracies on scenes of held-out scans, the same ones every time."""
        questions = 12
        if self._exam is None:
            world = self.course.world("test", self.args.seed)
            self._exam = []
            for index in range(self.args.exams):
                rng = np.random.default_rng([self.args.seed, 9, index])
                exam = make_batch(world, rng, 16, questions, families=self.course.families)
                self._exam.append(exam.to(self.args.device))
        shared = self._share(questions)
        self.model.eval()
        hits, reports = [], []
        for batch in self._exam:
            rows = self._rows(batch)
            reports.append(dense_loss(self.heads, rows, batch)[1])
            if self.stage > 0:
                hits.append(answer(self.model, rows, batch, shared)[1])
        self.model.train()
        result = {k: round(float(np.mean([r[k] for r in reports])), 3) for k in reports[0]}
        if hits:
            hit = torch.cat(hits)
            family = torch.cat([batch.family for batch in self._exam])
            for index, name in enumerate(self.course.families):
                asked = hit[family == index]
                if len(asked):
                    result[name] = round(asked.float().mean().item(), 3)
            result["all"] = round(hit.float().mean().item(), 3)
        return result


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=COURSES, default=SETTINGS["world"])
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=SETTINGS["architecture"])
    parser.add_argument(
        "--align",
        type=float,
        default=SETTINGS["align"],
        help="weight, in the vlm stage, of the contrast of rows with word embeddings; 0 leaves it "
        "out of the dense stage too",
    )
    parser.add_argument(
        "--ground",
        type=float,
        help="weight of the supervision of attention heads; demo: 0.5, study: 1",
    )
    parser.add_argument(
        "--drop",
        type=float,
        help="share of the vlm steps at which a random part of the visual rows, up to three "
        "quarters, is left out; demo: 0, study: 1/3",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--seed", type=int, default=SETTINGS["seed"])
    parser.add_argument("--dense-steps", type=int, default=1700)
    parser.add_argument("--dense-rate", type=float, default=1.5e-3)
    parser.add_argument("--dense-batch", type=int, default=16)
    parser.add_argument("--vlm-steps", type=int, default=1700)
    parser.add_argument("--vlm-rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8, help="scenes per step of the vlm stage")
    parser.add_argument("--questions", type=int, default=16, help="questions per scene")
    parser.add_argument(
        "--mixture",
        type=float,
        nargs="+",
        help="shares of the world's families: "
        + "; ".join(f"{name}: {', '.join(course.families)}" for name, course in COURSES.items()),
    )
    parser.add_argument(
        "--easy-steps",
        type=int,
        default=400,
        help="steps of the vlm stage, from its first, that ask about one object or count only "
        "(world study)",
    )
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument("--exams", type=int, default=4, help="batches of held-out scenes a report")
    parser.add_argument(
        "--state",
        type=pathlib.Path,
        help="where the resumable state lies (build/train_NAME.pt, where NAME is "
        "WORLD-ARCHITECTURE-SEED, with -unaligned where --align is 0); delete it to start over",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="folder of the checkpoint (build/models/NAME)"
    )
    parser.add_argument("--export", action="store_true", help="export the state, train nothing")
    args = parser.parse_args(given)
    course = COURSES[args.world]
    args.ground = course.ground if args.ground is None else args.ground
    args.drop = course.drop if args.drop is None else args.drop
    for name in ("align", "ground"):
        weight = getattr(args, name)
        if not 0 <= weight < math.inf:
            parser.error(f"--{name}: got {weight}, allowed is a weight >= 0")
    if not 0 <= args.drop <= 1:
        parser.error(f"--drop: got {args.drop}, allowed is a share in [0, 1]")
    args.mixture = _shares(parser, args.mixture, course)
    build = REPOSITORY / "build"
    args.state = args.state or build / f"train_{_name(args)}.pt"
    args.output = args.output or build / "models" / _name(args)
    return args


def _shares(parser: argparse.ArgumentParser, mixture, course) -> list[float]:
    """Shares that add up to 1."""
    mixture = course.mixture if mixture is None else mixture
    whole = len(mixture) == len(course.families)
    if not whole or min(mixture) < 0 or not 0 < sum(mixture) < math.inf:
        parser.error(
            f"--mixture: got {list(mixture)}, allowed are {len(course.families)} shares >= 0, not "
            f"all 0: {', '.join(course.families)}"
        )
    return [share / sum(mixture) for share in mixture]


def _name(args: argparse.Namespace) -> str:
    """A model's name in build/."""
    unaligned = "" if args.align else "-unaligned"
    return f"{args.world}-{args.architecture}-{args.seed}{unaligned}"


def main() -> None:
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.export and not args.state.exists():
        raise SystemExit(f"nothing to export: {args.state} does not exist")
    trainer = Trainer(args)
    if not args.export:
        trainer.run()
    export(trainer.architecture, trainer.model, trainer.words, args.output)
    print(f"exported to {args.output}")


if __name__ == "__main__":
    main()
