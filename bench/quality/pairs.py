"""Draws pictures with texts for calibrating a critic: training scenes, without boxes and answers.

    python bench/quality/pairs.py --output build/pairs
    python -m mi_pruner_cuda calibrate --model mi_pruner_cuda/demo/model \\
        --pairs build/pairs/captions.jsonl --output critic.safetensors

Writes PNGs, captions.jsonl (every object named: "there are a red 7 a blue 3 ... in the picture .")
and questions.jsonl (one question about each picture), each a line {"image": .., "text": ..} a
picture, as `python -m mi_pruner_cuda calibrate --pairs` reads it. All words are in the models'
vocabulary.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm
from vlm_batches import COURSES

from mi_pruner_cuda.demo.scenes import Scene


def caption(scene: Scene) -> str:
    """All objects by colour and digit, in the order in which they were placed."""
    named = (
        f"{'an' if item.colour == 'orange' else 'a'} {item.colour} {item.digit}"
        for item in scene.objects
    )
    return f"there are {' '.join(named)} in the picture ."


def draw(world: str, count: int, seed: int) -> Iterator[tuple[Scene, dict[str, str]]]:
    """Scenes of the training split, each with its texts by the name of their file."""
    source = COURSES[world].world("train", seed)
    for number in range(count):
        rng = np.random.default_rng([seed, 13, number])
        scene = source.scene(rng)
        yield scene, {"captions": caption(scene), "questions": source.ask(scene, rng).text}


def write(folder: pathlib.Path, world: str, count: int, seed: int) -> None:
    """PNGs and a file of each kind of text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"captions": [], "questions": []}
    for number, (scene, texts) in enumerate(tqdm(draw(world, count, seed), total=count)):
        name = f"{number:05}.png"
        scene.image.save(folder / name)
        for kind, text in texts.items():
            lines[kind].append(json.dumps({"image": name, "text": text}))
    for kind, written in lines.items():
        (folder / f"{kind}.jsonl").write_text("\n".join(written) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=COURSES, default="demo")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder")
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f"--count: got {args.count}, allowed is an integer >= 1")
    write(args.output, args.world, args.count, args.seed)
    print(f"{args.count} pairs in {args.output}")


if __name__ == "__main__":
    main()
