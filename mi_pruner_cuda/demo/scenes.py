"""Scenes of real handwritten digits, and questions about them.

A scene is a textured 224x224 picture that holds five to nine handwritten digits (the 1,797 scans
of scikit-learn's ``load_digits``), each of a different value, scaled, tinted in one of eight
colours and placed without overlap. A fifth of the scans is held out: ``split="test"`` draws only
from scans that ``split="train"`` never shows; "study" and "final" are its two halves.

    scene = render(seed=3)
    question = ask(scene, "colour", seed=0)
    question.text, question.answer        # "what colour is the 7 ?", "green"
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib

import numpy as np
from PIL import Image

IMAGE_SIZE = 224
PATCH = 14
GRID = IMAGE_SIZE // PATCH

COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 240),
    "yellow": (240, 225, 50),
    "purple": (170, 60, 215),
    "orange": (245, 140, 30),
    "cyan": (60, 215, 225),
    "white": (242, 242, 242),
}
COLOUR_NAMES = tuple(COLOURS)
COUNT_NAMES = ("zero", "one", "two", "three", "four")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")

# The wordings of each family: {d} a digit, {c} a colour, {w} "colour" or "color", {a} an article.
TEMPLATES = {
    "colour": (
        "what {w} is the {d} ?",
        "tell me the {w} of the {d} .",
        "which {w} does the {d} have ?",
    ),
    "digit": ("which digit is {c} ?", "what is the {c} digit ?", "which number is {c} ?"),
    "exist": ("is there {a} {d} ?", "do you see {a} {d} ?", "is {a} {d} in the picture ?"),
    "count": (
        "how many digits are {c} ?",
        "count the {c} digits .",
        "how many {c} digits are there ?",
    ),
    "quarter": (
        "which quarter is the {d} in ?",
        "where is the {d} ?",
        "in which quarter is the {d} ?",
    ),
}
FAMILIES = tuple(TEMPLATES)

# "background" is never asked about: it names the patches that hold no digit.
_WORDS = (
    "what which is the a an in there how many digits digit are colour color quarter do you see "
    "where count tell me of does have number picture background no yes top bottom left right"
)
VOCABULARY = (
    *("?", "."),
    *_WORDS.split(),
    *COLOUR_NAMES,
    *COUNT_NAMES,
    *(str(digit) for digit in range(10)),
)

SPLITS = ("train", "test", "study", "final")

_SIZES = (42, 56)  # three or four patches across: smaller digits take far longer to learn
_JITTER = 2  # pixels by which a digit leaves the patch grid
_MARGIN = 10  # a digit's centre keeps this far from the middle lines, so that its quarter is clear
_INK = 0.10  # a patch belongs to a digit when this share of it is ink


@dataclasses.dataclass
class Item:
    """One digit of a scene; ``box`` is (left, top, right, bottom) in pixels."""

    digit: int
    colour: str
    box: tuple[int, int, int, int]
    ink: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def quarter(self) -> str:
        """The quarter of the picture that the box's centre lies in."""
        left, top, right, bottom = self.box
        return QUARTERS[2 * (top + bottom > IMAGE_SIZE) + (left + right > IMAGE_SIZE)]

    @property
    def centre_patch(self) -> int:
        """Index of the patch in the middle of the box (up and left of it when four share it)."""
        left, top, right, _ = self.box
        inset = (right - left) // PATCH // 2 - (1 - (right - left) // PATCH % 2)
        row, column = (round(edge / PATCH) + inset for edge in (top, left))
        return row * GRID + column


@dataclasses.dataclass
class Scene:
    """A rendered picture and what is on it; brightness is the background's mean, 0 to 255."""

    image: Image.Image
    objects: list[Item]
    brightness: float = 0.0


@dataclasses.dataclass
class Question:
    """A question, its answer, and the indices of the objects that it asks about."""

    family: str
    text: str
    answer: str
    objects: list[int]


def _load_scans(split: str) -> list[list[Image.Image]]:
    """The 8x8 scans of one split, by digit."""
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, allowed are {', '.join(SPLITS)}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "rendering scenes needs scikit-learn's handwritten digits: pip install scikit-learn"
        ) from error
    data = load_digits()
    order = np.random.RandomState(1234).permutation(len(data.target))
    cut = int(0.8 * len(order))
    scans = [[] for _ in range(10)]
    held_out = order[cut:]
    parts = (order[:cut], held_out, held_out[::2], held_out[1::2])
    for index in parts[SPLITS.index(split)]:
        pixels = (data.images[index] / 16 * 255).astype(np.uint8)
        scans[data.target[index]].append(Image.fromarray(pixels))
    return scans


def _texture(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """A dim random texture: noise of four grain sizes over a nearly grey base."""
    base = rng.uniform(45, 115) + rng.uniform(-14, 14, 3)
    texture = np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    for grain, strength in ((4, 18), (16, 14), (64, 10), (size, 6)):
        noise = Image.fromarray(rng.normal(size=(grain, grain)).astype(np.float32))
        noise = np.asarray(noise.resize((size, size), Image.BICUBIC))
        tint = rng.uniform(0.7, 1.3, 3) * rng.uniform(0.4, 1.0) * strength
        texture = texture + noise[..., None] * tint.astype(np.float32)
    return np.clip(texture, 0, 255)


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random places for a digit, as rows of (left, top, right, bottom)."""
    size = rng.choice(_SIZES, (count, 1))
    cell = rng.integers(0, (IMAGE_SIZE - size) // PATCH + 1, (count, 2)) * PATCH
    corner = cell + rng.integers(-_JITTER, _JITTER + 1, (count, 2))
    corner = np.clip(corner, 0, IMAGE_SIZE - size)
    off_middle = np.abs(corner + size / 2 - IMAGE_SIZE / 2).min(1)
    return np.concatenate([corner, corner + size], 1)[off_middle >= _MARGIN]


def _overlaps(candidates: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each candidate meets any of the boxes."""
    starts_before = candidates[:, None, :2] < boxes[None, :, 2:]
    ends_after = candidates[:, None, 2:] > boxes[None, :, :2]
    return (starts_before & ends_after).all(2).any(1)


class World:
    """Renders scenes of one split and asks about them; every draw comes from the caller's rng."""

    def __init__(self, split: str = "train", seed: int = 0, textures: int = 96):
        self.split = split
        self._scans = _load_scans(split)
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        self._textures = [_texture(rng) for _ in range(textures)]

    def scene(self, rng: np.random.Generator, crowded: bool = False) -> Scene:
        """Renders a scene; a crowded one (for training) holds up to 14 digits, repeats allowed."""
        digits = rng.integers(0, 10, 14) if crowded else self._digits(rng)
        boxes = self._place(rng, len(digits), at_least=5)
        colours = self._tint(rng, len(boxes), most=len(boxes) if crowded else len(COUNT_NAMES) - 1)
        canvas = self._background(rng)
        brightness = float(canvas.mean())
        objects = []
        # Fewer boxes than digits when some found no room.
        for digit, colour, box in zip(digits, colours, boxes.tolist(), strict=False):
            objects.append(self._draw(rng, canvas, int(digit), colour, tuple(box)))
        return Scene(Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), objects, brightness)

    def _digits(self, rng: np.random.Generator) -> np.ndarray:
        """Values of a scene's digits, each another."""
        return rng.permutation(10)[: rng.integers(5, 10)]

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        texture = self._textures[rng.integers(len(self._textures))]
        top, left = rng.integers(0, texture.shape[0] - IMAGE_SIZE + 1, 2)
        crop = texture[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        return crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].copy()

    def _place(self, rng: np.random.Generator, wanted: int, at_least: int) -> np.ndarray:
        """Boxes that do not overlap; starts over in the rare case that too few find room."""
        while True:
            boxes = np.empty((0, 4), np.int64)
            for _ in range(wanted):
                candidates = _random_boxes(rng, 40)
                free = np.flatnonzero(~_overlaps(candidates, boxes))
                if len(free):
                    boxes = np.concatenate([boxes, candidates[free[:1]]])
            if len(boxes) >= at_least:
                return boxes

    def _tint(self, rng: np.random.Generator, count: int, most: int) -> list[str]:
        """A colour per digit from a palette of four to seven, none more than ``most`` times."""
        palette = rng.permutation(len(COLOURS))[: rng.integers(4, 8)]
        while True:
            picks = rng.choice(palette, count)
            if np.bincount(picks).max() <= most:
                return [COLOUR_NAMES[pick] for pick in picks]

    def _draw(self, rng, canvas: np.ndarray, digit: int, colour: str, box: tuple) -> Item:
        """Paints one digit onto the canvas."""
        left, top, right, bottom = box
        scans = self._scans[digit]
        ink = self._scale(rng, scans[rng.integers(len(scans))], right - left)
        tint = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 10, 3), 0, 255)
        region = canvas[top:bottom, left:right]
        region += ink[..., None] * (tint.astype(np.float32) - region)
        return Item(digit, colour, box, ink)

    def _scale(self, rng: np.random.Generator, scan: Image.Image, size: int) -> np.ndarray:
        """The scan as an alpha map; training scans are also sheared, stretched and shifted.

        Only 1,437 scans are trained on: the distortions keep the tower from learning them by heart.
        """
        matrix, shift, contrast = np.eye(2), np.zeros(2), 1.3
        if self.split == "train":
            matrix = np.array([[1, rng.uniform(-0.18, 0.18)], [rng.uniform(-0.12, 0.12), 1]])
            matrix = matrix / rng.uniform(0.88, 1.06, 2)[:, None]
            shift = rng.uniform(-0.4, 0.4, 2)
            contrast = rng.uniform(1.1, 1.6)
        # Image.transform maps pixels of the output to the scan; keep the centre in place.
        matrix = matrix * (scan.width / size)
        offset = scan.width / 2 + shift - matrix @ (size / 2, size / 2)
        affine = (*matrix[0], offset[0], *matrix[1], offset[1])
        big = scan.transform((size, size), Image.AFFINE, affine, Image.BICUBIC)
        return np.clip(np.asarray(big, np.float32) * (contrast / 255), 0, 1)

    def ask(self, scene: Scene, rng: np.random.Generator, family: str | None = None) -> Question:
        """Draws a question; raises ValueError when the scene allows none of the asked family."""
        if family is not None:
            return _ASK[family](scene, rng)
        while True:
            try:
                return _ASK[FAMILIES[rng.integers(len(FAMILIES))]](scene, rng)
            except ValueError:  # no colour occurs exactly once: ask something else
                continue


def phrase(rng: np.random.Generator, family: str, digit: int = 0, colour: str = "") -> str:
    """A question of the family in one of its wordings."""
    template = TEMPLATES[family][rng.integers(len(TEMPLATES[family]))]
    spelling = ("colour", "color")[rng.integers(2)]
    return template.format(d=digit, c=colour, w=spelling, a="an" if digit == 8 else "a")


def _ask_colour(scene: Scene, rng: np.random.Generator) -> Question:
    index = int(rng.integers(len(scene.objects)))
    item = scene.objects[index]
    return Question("colour", phrase(rng, "colour", item.digit), item.colour, [index])


def _ask_quarter(scene: Scene, rng: np.random.Generator) -> Question:
    index = int(rng.integers(len(scene.objects)))
    item = scene.objects[index]
    return Question("quarter", phrase(rng, "quarter", item.digit), item.quarter, [index])


def _ask_digit(scene: Scene, rng: np.random.Generator) -> Question:
    colours = [item.colour for item in scene.objects]
    single = [index for index, colour in enumerate(colours) if colours.count(colour) == 1]
    if not single:
        raise ValueError("no colour occurs exactly once in this scene")
    index = single[rng.integers(len(single))]
    text = phrase(rng, "digit", colour=colours[index])
    return Question("digit", text, str(scene.objects[index].digit), [index])


def _ask_exist(scene: Scene, rng: np.random.Generator) -> Question:
    present = [item.digit for item in scene.objects]
    absent = [digit for digit in range(10) if digit not in present]
    if rng.random() < 0.5:
        digit = absent[rng.integers(len(absent))]
        return Question("exist", phrase(rng, "exist", digit), "no", [])
    index = int(rng.integers(len(present)))
    return Question("exist", phrase(rng, "exist", present[index]), "yes", [index])


def _ask_count(scene: Scene, rng: np.random.Generator) -> Question:
    """Draws the count first, so that no answer is much likelier than the others."""
    colours = [item.colour for item in scene.objects]
    by_count = {}
    for name in COLOUR_NAMES:
        by_count.setdefault(colours.count(name), []).append(name)
    count = sorted(by_count)[rng.integers(len(by_count))]
    colour = by_count[count][rng.integers(len(by_count[count]))]
    asked = [index for index, name in enumerate(colours) if name == colour]
    return Question("count", phrase(rng, "count", colour=colour), COUNT_NAMES[count], asked)


_ASK = {
    "colour": _ask_colour,
    "digit": _ask_digit,
    "exist": _ask_exist,
    "count": _ask_count,
    "quarter": _ask_quarter,
}


def patch_owners(scene: Scene) -> np.ndarray:
    """For each of the 256 patches, the index of the object it shows, or -1 for background."""
    owners = np.full((GRID, GRID), -1, np.int64)
    most = np.full((GRID, GRID), _INK, np.float32)
    for index, item in enumerate(scene.objects):
        left, top, right, bottom = item.box
        row, column = top // PATCH, left // PATCH
        rows, columns = -(-bottom // PATCH) - row, -(-right // PATCH) - column
        padded = np.zeros((rows * PATCH, columns * PATCH), np.float32)
        y, x = top - row * PATCH, left - column * PATCH
        padded[y : y + bottom - top, x : x + right - left] = item.ink
        share = padded.reshape(rows, PATCH, columns, PATCH).mean((1, 3))
        window = np.s_[row : row + rows, column : column + columns]
        owners[window][share > most[window]] = index
        most[window] = np.maximum(most[window], share)
    owners = owners.ravel()
    for index, item in enumerate(scene.objects):  # the hole of a 0 still belongs to it
        owners[item.centre_patch] = index
    return owners


@functools.lru_cache(maxsize=2)
def _world(split: str) -> World:
    return World(split)


def render(seed: int = 0, split: str = "test") -> Scene:
    """Renders the scene of a seed, by default from held-out scans."""
    return _world(split).scene(np.random.default_rng([seed, 1]))


def ask(scene: Scene, family: str | None = None, seed: int = 0) -> Question:
    """Asks one question about a scene, of a given family or of any."""
    return _world("test").ask(scene, np.random.default_rng([seed, 2]), family)


def write_example(folder: pathlib.Path, seed: int) -> None:
    """Writes a held-out scene and one question of each family as scene.png and scene.json."""
    scene = render(seed)
    questions = [ask(scene, family, seed) for family in FAMILIES]
    scene.image.save(folder / "scene.png", optimize=True)
    objects = [{"digit": i.digit, "colour": i.colour, "box": i.box} for i in scene.objects]
    content = {
        "image": "scene.png",
        "split": "test",
        "seed": seed,
        "objects": objects,
        "questions": [dataclasses.asdict(question) for question in questions],
    }
    (folder / "scene.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=write_example.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    write_example(arguments.output, arguments.seed)
