"""Scenes and questions of a world as training batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import world as study
from PIL import Image
from vlm_prompt import BLOCK, CLIP_MEAN, CLIP_STD, EOS, PAD, PATCHES, SUFFIX, WORD_ID

from mi_pruner_cuda.demo import scenes

_TRIES = 1000  # draws of a family for one question


@dataclasses.dataclass(frozen=True)
class Course:
    """A world to train on: its class, its families and their default shares.

    first: the shares that the vlm stage begins with; None begins with the mixture.
    ground, drop: defaults of the options of these names.
    """

    world: type[scenes.World]
    families: tuple[str, ...]
    mixture: tuple[float, ...]
    first: tuple[float, ...] | None = None
    ground: float = 0.5
    drop: float = 0.0


# Several objects or a place need more practice than a single colour or brightness.
_STUDY = {
    "colour": 0.04, "digit": 0.05, "quarter": 0.08, "exist": 0.05, "count": 0.16, "pair": 0.08,
    "beside": 0.18, "total": 0.16, "ground": 0.07, "twice": 0.10, "absent": 0.03,
}  # fmt: skip
# Heads that find one object come first: what needs several can then be learned from them.
_STUDY_FIRST = {
    "colour": 0.15, "digit": 0.2, "quarter": 0.2, "exist": 0.15, "count": 0.2, "pair": 0.1,
}  # fmt: skip

COURSES = {
    "demo": Course(scenes.World, scenes.FAMILIES, (0.08, 0.13, 0.16, 0.38, 0.25)),
    "study": Course(
        study.StudyWorld,
        study.FAMILIES,
        tuple(_STUDY[family] for family in study.FAMILIES),
        tuple(_STUDY_FIRST.get(family, 0.0) for family in study.FAMILIES),
        ground=1.0,
        drop=1 / 3,
    ),
}


@dataclasses.dataclass
class Batch:
    """Scenes with B pictures and Q questions each; -100 marks positions without a target."""

    pixels: torch.Tensor  # (B, 3, 224, 224), normalised
    digit: torch.Tensor  # (B, 256), 10 is background
    colour: torch.Tensor  # (B, 256), 8 is background
    quarter: torch.Tensor  # (B, 256), -100 on background
    bright: torch.Tensor  # (B, 256), 1 and 0 on bright and dark background, else -100
    centre: torch.Tensor  # (B, 256), 1 on each object's centre patch
    tokens: torch.Tensor  # (B, Q, BLOCK)
    targets: torch.Tensor  # (B, Q, BLOCK), already shifted by one
    family: torch.Tensor  # (B, Q)
    asked: torch.Tensor  # (B, Q, 256), 1 on patches of the asked objects
    looks: torch.Tensor  # (B, Q, 2, 256), of these, what the first and second answer word is about

    def only(self, rows: torch.Tensor) -> Batch:
        """The same pictures with these visual rows alone, int64 (K)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        patches = {n: value[..., rows] for n, value in values.items() if value.shape[-1] == PATCHES}
        return dataclasses.replace(self, **patches)

    def to(self, device: str) -> Batch:
        return Batch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def make_batch(
    world: scenes.World,
    rng: np.random.Generator,
    size: int,
    questions: int = 0,
    crowded: bool = False,
    weights: list[float] | None = None,
    families: tuple[str, ...] = scenes.FAMILIES,
) -> Batch:
    """Renders scenes and asks about them; ``weights`` are the shares of the world's families."""
    drawn = [world.scene(rng, crowded) for _ in range(size)]
    batch = _label_patches(drawn, world)
    batch["pixels"] = _normalise([scene.image for scene in drawn])
    tokens = np.full((size, questions, BLOCK), PAD, np.int64)
    targets = np.full((size, questions, BLOCK), -100, np.int64)
    family = np.zeros((size, questions), np.int64)
    asked = np.zeros((size, questions, PATCHES), np.float32)
    looks = np.zeros((size, questions, 2, PATCHES), np.float32)
    for b, scene in enumerate(drawn):
        for q in range(questions):
            question = _draw_question(world, scene, rng, weights, families)
            family[b, q] = families.index(question.family)
            asked[b, q] = np.isin(batch["owner"][b], question.objects)
            looks[b, q] = asked[b, q]
            if question.family == "pair":
                looks[b, q] = np.equal.outer(question.objects, batch["owner"][b])
            elif question.family == "beside":
                (there,) = (o for o in question.objects
                            if str(scene.objects[o].digit) == question.answer)  # fmt: skip
                looks[b, q] = batch["owner"][b] == there
            _write_question(question, tokens[b, q], targets[b, q])
    batch.update(tokens=tokens, targets=targets, family=family, asked=asked, looks=looks)
    del batch["owner"]
    return Batch(**{name: torch.as_tensor(value) for name, value in batch.items()})


def _draw_question(world, scene, rng, weights, families) -> scenes.Question:
    if weights is None:
        return world.ask(scene, rng)
    for _ in range(_TRIES):
        try:
            return world.ask(scene, rng, families[rng.choice(len(weights), p=weights)])
        except ValueError:  # this scene allows no question of that family
            continue
    raise ValueError(
        f"weights: got {list(weights)}, allowed are shares that leave a question for every scene"
    )


def _write_question(question: scenes.Question, tokens: np.ndarray, targets: np.ndarray) -> None:
    """Fills one block; each target stands where the model predicts it."""
    prompt = [WORD_ID[word] for word in (*question.text.split(), *SUFFIX)]
    answer = [WORD_ID[word] for word in question.answer.split()] + [EOS]
    whole = (prompt + answer)[:-1]
    tokens[: len(whole)] = whole
    targets[len(prompt) - 1 : len(whole)] = answer


def _label_patches(drawn: list[scenes.Scene], world: scenes.World) -> dict[str, np.ndarray]:
    """Per-patch labels of a list of scenes; brightness where the world asks about it."""
    owner = np.stack([scenes.patch_owners(scene) for scene in drawn])
    labels = {"owner": owner, "centre": np.zeros(owner.shape, np.float32)}
    for name, background in (("digit", 10), ("colour", 8), ("quarter", -100), ("bright", -100)):
        labels[name] = np.full(owner.shape, background, np.int64)
    for b, scene in enumerate(drawn):
        bright = study.ground_of(scene) if isinstance(world, study.StudyWorld) else None
        if bright is not None:
            labels["bright"][b, owner[b] < 0] = bright == "bright"
        for index, item in enumerate(scene.objects):
            mine = owner[b] == index
            labels["digit"][b, mine] = item.digit
            labels["colour"][b, mine] = scenes.COLOUR_NAMES.index(item.colour)
            labels["quarter"][b, mine] = scenes.QUARTERS.index(item.quarter)
            labels["centre"][b, item.centre_patch] = 1
    return labels


def _normalise(images: list[Image.Image]) -> torch.Tensor:
    """What the exported image processor does to a 224x224 picture."""
    pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 255
    pixels = (pixels - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
