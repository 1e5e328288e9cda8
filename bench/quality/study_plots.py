"""Draws what study.py measured.

    python bench/quality/study_plots.py --output bench/results     # accuracy and recall by budget
    python bench/quality/study_plots.py --scene 3                  # and what each method keeps

Writes study_accuracy_MODEL.png, study_recall_MODEL.png and study_scene_MODEL.png.
"""

import argparse
import pathlib

import numpy as np
from exam import draw_exam
from matplotlib import colormaps
from matplotlib.figure import Figure
from methods import Ours, Room
from reader import Reader
from study import MODELS, RESULTS, SEED
from study_parts import KEEPS, PARTS, RELEVANCE
from study_tables import Measured, check_results, measured_in

from mi_pruner_cuda import ops
from mi_pruner_cuda.demo import scenes

_OURS = {Ours().name: "ours (defaults)", RELEVANCE.name: "ours, relevance alone"}
_COLOURS = ("black", "0.5")


def label(name: str) -> str:
    return _OURS.get(name, name)


def draw_lines(measured: Measured, value, title: str, path: pathlib.Path, groups) -> None:
    """A panel per group, a line per method.

    Args:
        value: (run, group) -> percent.
    """
    figure = Figure(figsize=(4.2 * len(groups), 4.4), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    shares = [100 * keep for keep in KEEPS]
    for panel, group in zip(panels, groups, strict=True):
        panel.set_prop_cycle(color=colormaps["tab20"].colors)
        for place, (name, own) in enumerate(measured.runs().items()):
            ours = name in _OURS
            style = {"color": _COLOURS[place], "linewidth": 2.4} if ours else {"linewidth": 1.0}
            values = [
                value(own[keep], group) if own[keep] in measured else np.nan for keep in KEEPS
            ]
            panel.plot(shares, values, marker=".", label=label(name), **style)
        panel.set(xscale="log", xlabel="visual tokens kept (%)", title=group)
        panel.set_xticks(shares, [f"{share:g}" for share in shares])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(title)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize="small")
    figure.suptitle(f"{measured.head.model}, {len(measured.exam)} questions")
    figure.savefig(path, dpi=80)


def draw_scene(folder: pathlib.Path, split: str, question: int, path: pathlib.Path) -> None:
    """One scene and question: relevance in nats, and the patches that each method keeps of 10 %."""
    exam = draw_exam("study", split, SEED, 4)
    reader = Reader(folder, exam, quiet=True)
    views, attention = reader.look()
    room = Room(reader, views, attention)
    asked = exam.questions[question]
    picture = exam.scenes[exam.scene_of[question]].image
    runs = [run for run in PARTS["rules"].runs if run.method is not None and run.keep == 0.1]
    columns = 5
    lines = -(-(len(runs) + 1) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns).ravel()
    for panel in panels:
        panel.axis("off")
    scores = ops.mutual_information(room.rows(question), reader.text(question))
    panels[0].imshow(picture)
    heat = panels[0].imshow(
        scores.view(scenes.GRID, scenes.GRID), alpha=0.6, extent=(0, *picture.size, 0)
    )
    figure.colorbar(heat, ax=panels[0], shrink=0.7)
    panels[0].set_title("mutual information (nats)", fontsize="small")
    count = round(0.1 * len(scores))
    for panel, run in zip(panels[1:], runs, strict=False):
        kept = run.method.choose(room, question, count)
        shade = np.full(len(scores), 0.75)
        shade[kept] = 0.0
        shade = np.kron(shade.reshape(scenes.GRID, scenes.GRID), np.ones((scenes.PATCH,) * 2))
        panel.imshow(np.asarray(picture) / 255 * (1 - shade[..., None]))
        panel.set_title(label(run.name), fontsize="small")
    figure.suptitle(f"{asked.text}  ({asked.answer}); {count} of {len(scores)} tokens")
    figure.savefig(path, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("study", "final"), default="study")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--scene", type=int, metavar="QUESTION", help="also draws that question's")
    parser.add_argument("--models", nargs="+", type=pathlib.Path, default=[], help="for --scene")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="study.py's --output")
    parser.add_argument(
        "--output", type=pathlib.Path, default=RESULTS, help="folder of the pictures"
    )
    args = parser.parse_args()
    check_results(parser, args.results)
    for measured in measured_in(args.results, args.split, args.seed):
        if measured.head.part != "rules":
            continue
        name = f"{measured.head.model}.png"
        draw_lines(measured, measured.accuracy, "exact-match accuracy (%)",
                   args.output / f"study_accuracy_{name}", list(measured.groups))  # fmt: skip
        draw_lines(measured, lambda run, group, m=measured: m.recall(run), "patches found (%)",
                   args.output / f"study_recall_{name}", ["all"])  # fmt: skip
    if args.scene is not None:
        for folder in args.models or sorted(p.parent for p in MODELS.glob("*/config.json")):
            draw_scene(
                folder, args.split, args.scene, args.output / f"study_scene_{folder.name}.png"
            )


if __name__ == "__main__":
    main()
