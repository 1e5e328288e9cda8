"""Accuracy of the demo model when its visual tokens are pruned.

    python bench/quality/accuracy.py --json accuracy.json --plot accuracy.png

For each share of kept tokens and each way of choosing them, held-out questions (other scans than
those of the training) are answered through mi_pruner_cuda.attach and generate, as a user would. A
seed is a set of scenes and questions; for random selection it is also the draw. Intervals are
Wilson's, 95 %.

Random and uniform-grid selection do not look at the question. They are what any method must beat.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from baselines import RULES, selector
from eval_vlm import answer_all, held_out_questions, tally, wilson
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from mi_pruner_cuda import attach, demo
from mi_pruner_cuda.budget import resolve
from mi_pruner_cuda.demo import scenes

KEEPS = (0.5, 0.25, 0.1, 0.05)


def methods(seed: int) -> dict:
    """What each method changes in attach, beside keep."""
    draws = torch.Generator().manual_seed(seed)
    return {
        "mutual information": {},
        "the same, redundancy 1": {"redundancy": 1.0},
        "random": {"selector": selector(RULES["random"], generator=draws)},
        "uniform grid": {"selector": selector(RULES["uniform grid"])},
    }


def recall(pairs, kept) -> tuple[float, int]:
    """(summed share of the asked objects' patches that were kept, number of such questions)."""
    total, count = 0.0, 0
    for (scene, question), indices in zip(pairs, kept, strict=True):
        asked = np.isin(scenes.patch_owners(scene), question.objects)
        if asked.any():
            total += asked[indices].sum() / asked.sum()
            count += 1
    return total, count


def run(model, processor, pairs, keep, options, batch):
    """Right and asked per family, and the recall, of one way of choosing at one share."""
    if keep == 1.0:
        return tally(pairs, answer_all(model, processor, pairs, batch)), (0.0, 0)
    kept = []
    answers = []
    with attach(model, keep=keep, tokenizer=processor, **options) as pruner:
        for first in range(0, len(pairs), batch):
            part = pairs[first : first + batch]
            answers += answer_all(model, processor, part, batch, quiet=True)
            kept += [entry.indices.numpy() for entry in pruner.report]
    return tally(pairs, answers), recall(pairs, kept)


def add(total: dict, part: dict) -> dict:
    return {
        name: tuple(a + b for a, b in zip(total.get(name, (0, 0)), part[name], strict=True))
        for name in part
    }


def study(model, processor, args) -> list[dict]:
    """One row per method and share, summed over the seeds."""
    cases = [("all tokens", 1.0)]
    cases += [(method, keep) for keep in KEEPS for method in methods(0)]
    rows = {case: ({}, (0.0, 0)) for case in cases}
    with tqdm(total=len(cases) * args.seeds, unit="run") as progress:
        for seed in range(args.seeds):
            pairs = list(held_out_questions(args.questions // args.seeds, 5000 + seed))
            ways = methods(seed)
            for method, keep in cases:
                counts, found = run(model, processor, pairs, keep, ways.get(method), args.batch)
                old_counts, old_found = rows[method, keep]
                rows[method, keep] = (
                    add(old_counts, counts),
                    tuple(a + b for a, b in zip(old_found, found, strict=True)),
                )
                progress.update()
    return [describe(method, keep, *result) for (method, keep), result in rows.items()]


def describe(method, keep, counts, found) -> dict:
    right, asked = counts["all"]
    low, high = wilson(right, asked)
    return {
        "method": method,
        "keep": keep,
        "tokens": resolve(keep, 256),
        "accuracy": right / asked,
        "low": low,
        "high": high,
        "questions": asked,
        "recall": found[0] / found[1] if found[1] else None,
        "families": {name: counts[name][0] / counts[name][1] for name in scenes.FAMILIES},
    }


def format_table(rows) -> str:
    heads = ("keep", "tokens", "chosen by", "accuracy %", "95 % interval", "patches found %")
    lines = [heads + scenes.FAMILIES, ("---",) * (len(heads) + len(scenes.FAMILIES))]
    for r in rows:
        found = "" if r["recall"] is None else f"{100 * r['recall']:.0f}"
        interval = f"{100 * r['low']:.1f} to {100 * r['high']:.1f}"
        line = [f"{100 * r['keep']:.0f} %", str(r["tokens"]), r["method"]]
        line += [f"{100 * r['accuracy']:.1f}", interval, found]
        lines.append(line + [f"{100 * r['families'][name]:.0f}" for name in scenes.FAMILIES])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(rows, path: Path) -> None:
    """Accuracy against kept tokens, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    whole = next(r for r in rows if r["keep"] == 1.0)
    for method in methods(0):
        own = [whole] + [r for r in rows if r["method"] == method]
        share = [100 * r["keep"] for r in own]
        value = [100 * r["accuracy"] for r in own]
        error = [
            [100 * (r["accuracy"] - r["low"]) for r in own],
            [100 * (r["high"] - r["accuracy"]) for r in own],
        ]
        axes.errorbar(share, value, yerr=error, marker="o", capsize=3, label=method)
    axes.set(xscale="log", xlabel="visual tokens kept (%)", ylabel="exact-match accuracy (%)")
    axes.set_xticks([5, 10, 25, 50, 100], ["5", "10", "25", "50", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a checkpoint; the shipped one if absent")
    parser.add_argument("--questions", type=int, default=2100, help="in all seeds together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--plot", type=Path, help="also draw them there")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.model or demo.model_path()
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    rows = study(model, processor, args)
    print(format_table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
