"""Exact-match accuracy of the shipped vision-language model on held-out questions.

    python bench/quality/eval_vlm.py                     # 2,000 questions, 400 of each family

Everything goes the way a user's call goes: ``from_pretrained``, the processor with its chat
template, ``generate`` in left-padded batches. Scenes are rendered from scans that training never
showed, and an answer counts only when it equals the expected one word for word.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mi_pruner_cuda import demo
from mi_pruner_cuda.demo import scenes


def held_out_questions(count: int, seed: int) -> Iterator[tuple[scenes.Scene, scenes.Question]]:
    """Yields ``count`` questions, the families in turn, five questions per scene."""
    world = scenes.World("test", seed)
    rng = np.random.default_rng([seed, 11])
    asked = 0
    while asked < count:
        scene = world.scene(rng)
        try:
            questions = [world.ask(scene, rng, family) for family in scenes.FAMILIES]
        except ValueError:  # no colour occurs exactly once: this scene lacks one family
            continue
        for question in questions[: count - asked]:
            asked += 1
            yield scene, question


def prompt(processor, question: str) -> str:
    """The chat prompt of one picture and one question."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


@torch.inference_mode()
def answer_all(model, processor, pairs: list, size: int = 16, quiet: bool = False) -> list[str]:
    """The model's answers to (scene, question) pairs."""
    answers = []
    starts = range(0, len(pairs), size)
    for first in tqdm(starts, desc="questions", unit="batch", leave=False, disable=quiet):
        part = pairs[first : first + size]
        inputs = processor(
            images=[scene.image for scene, _ in part],
            text=[prompt(processor, question.text) for _, question in part],
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
        said = output[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(said, skip_special_tokens=True)
    return [text.strip() for text in answers]


def tally(pairs: list, answers: list[str]) -> dict[str, tuple[int, int]]:
    """(right, asked) per family and in all."""
    result = dict.fromkeys((*scenes.FAMILIES, "all"), (0, 0))
    for (_, question), said in zip(pairs, answers, strict=True):
        for name in (question.family, "all"):
            right, asked = result[name]
            result[name] = (right + (said == question.answer), asked + 1)
    return result


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z, share = 1.96, right / asked
    centre = share + z * z / (2 * asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    return (centre - half) / scale, (centre + half) / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=pathlib.Path, help="a checkpoint; the shipped one if absent"
    )
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--json", type=pathlib.Path, help="also write the counts to this file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.model or demo.model_path()
    model = AutoModelForImageTextToText.from_pretrained(path).to(args.device).eval()
    processor = AutoProcessor.from_pretrained(path)
    pairs = list(held_out_questions(args.questions, args.seed))
    result = tally(pairs, answer_all(model, processor, pairs, args.batch))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    for name, (right, asked) in result.items():
        low, high = wilson(right, asked)
        print(f"{name:8} {right:5} of {asked:5}  {right / asked:6.1%}  [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main()
