"""The world of the accuracy study: the demo's scenes with repeated digits, and questions that need
more than one object's patches.

What a pruner must keep for each family (STRESS):
- locality: one object. colour, digit, quarter, exist.
- coverage: several objects. count, pair, beside.
- whole: the whole scene. total, ground.
- distractor: an object that misleads. twice (the asked digit appears twice), absent (it does not).
"""

import numpy as np

from mi_pruner_cuda.demo import scenes
from mi_pruner_cuda.demo.scenes import IMAGE_SIZE, Question, Scene

STRESS = {
    "locality": ("colour", "digit", "quarter", "exist"),
    "coverage": ("count", "pair", "beside"),
    "whole": ("total", "ground"),
    "distractor": ("twice", "absent"),
}
FAMILIES = tuple(family for group in STRESS.values() for family in group)
TOTALS = ("five", "six", "seven", "eight", "nine")
NOWHERE = "none"  # the colour of a digit that is not there

# {d}, {e} digits, {s} a side, {w} "colour" or "color".
TEMPLATES = {
    "pair": ("{w} of the {d} the {e} ?",),
    "beside": ("is the {d} or the {e} {s} ?",),
    "total": ("how many digits are there in the picture ?", "count the digits ."),
    "ground": ("is the background bright or dark ?", "how bright is the background ?"),
    "twice": (
        "what {w} is the {s} {d} ?",
        "tell me the {w} of the {s} {d} .",
    ),
}
# The shipped models' ids count "more", "than" and "above" too; no question has them.
VOCABULARY = (
    *scenes.VOCABULARY, "more", "than", "or", "above", "bright", "dark", NOWHERE, *TOTALS,
)  # fmt: skip

_REPEATED = 0.4  # share of scenes with a digit that appears twice
_APART = 20  # pixels by which centres differ where a question asks which is farther
_BRIGHT, _DARK = 88, 72  # of the background's mean; between them nothing is asked


class StudyWorld(scenes.World):
    """Renders scenes of one split and asks about them; every draw comes from the caller's rng."""

    def _digits(self, rng: np.random.Generator) -> np.ndarray:
        digits = super()._digits(rng)
        if rng.random() < _REPEATED:
            digits[-1] = digits[0]
        return digits

    def ask(self, scene: Scene, rng: np.random.Generator, family: str | None = None) -> Question:
        """Draws a question; raises ValueError when the scene allows none of the asked family."""
        if family is not None:
            return _ASK[family](self, scene, rng)
        while True:
            try:
                return _ASK[FAMILIES[rng.integers(len(FAMILIES))]](self, scene, rng)
            except ValueError:
                continue


def _phrase(rng: np.random.Generator, family: str, **words) -> str:
    template = TEMPLATES[family][rng.integers(len(TEMPLATES[family]))]
    return template.format(w=("colour", "color")[rng.integers(2)], **words)


def _pick(rng: np.random.Generator, options: list):
    if not options:
        raise ValueError("this scene allows no such question")
    return options[rng.integers(len(options))]


def _middle(item) -> tuple[float, float]:
    """(x, y) of the box's centre."""
    left, top, right, bottom = item.box
    return (left + right) / 2, (top + bottom) / 2


def _places(scene: Scene) -> dict[int, list[int]]:
    """Digit -> its objects."""
    found: dict[int, list[int]] = {}
    for index, item in enumerate(scene.objects):
        found.setdefault(item.digit, []).append(index)
    return found


def _ask_about_one(family: str):
    """colour and quarter, of a digit that appears once."""

    def ask(world, scene: Scene, rng) -> Question:
        (index,) = _pick(rng, [own for own in _places(scene).values() if len(own) == 1])
        item = scene.objects[index]
        answer = item.colour if family == "colour" else item.quarter
        return Question(family, scenes.phrase(rng, family, item.digit), answer, [index])

    return ask


def _ask_as_the_demo(family: str):
    """digit, exist and count do not mind that a digit appears twice; exist then asks about both."""

    def ask(world, scene: Scene, rng) -> Question:
        question = scenes.World.ask(world, scene, rng, family)
        if family == "exist" and question.objects:
            digit = scene.objects[question.objects[0]].digit
            question.objects = _places(scene)[digit]
        return question

    return ask


def _ask_pair(world, scene: Scene, rng) -> Question:
    """The colours of two digits, in the order of their mention."""
    a, b = _pick(rng, _pairs(scene))
    first, second = scene.objects[a], scene.objects[b]
    text = _phrase(rng, "pair", d=first.digit, e=second.digit)
    return Question("pair", text, f"{first.colour} {second.colour}", [a, b])


def _ask_beside(world, scene: Scene, rng) -> Question:
    """Which of two digits is on a side of the picture; the other is on the opposite one."""
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    half = IMAGE_SIZE / 2
    beyond = [_middle(item)[axis] > half for item in scene.objects]
    a, b = _pick(rng, [(a, b) for a, b in _pairs(scene) if beyond[a] != beyond[b]])
    side = (("left", "right"), ("top", "bottom"))[axis][far]
    words = {"d": scene.objects[a].digit, "e": scene.objects[b].digit}
    there = a if beyond[a] == far else b
    text = _phrase(rng, "beside", s=side, **words)
    return Question("beside", text, str(scene.objects[there].digit), [a, b])


def _pairs(scene: Scene) -> list[tuple[int, int]]:
    """Ordered pairs of objects whose digits appear once."""
    single = [own[0] for own in _places(scene).values() if len(own) == 1]
    return [(a, b) for a in single for b in single if a != b]


def _ask_total(world, scene: Scene, rng) -> Question:
    count = len(scene.objects)
    if not 5 <= count <= 9:
        raise ValueError("this scene has a number of digits without a name")
    return Question("total", _phrase(rng, "total"), TOTALS[count - 5], list(range(count)))


def ground_of(scene: Scene) -> str | None:
    """What the background is, "bright" or "dark"; None between the two."""
    if _DARK < scene.brightness < _BRIGHT:
        return None
    return "bright" if scene.brightness >= _BRIGHT else "dark"


def _ask_ground(world, scene: Scene, rng) -> Question:
    answer = ground_of(scene)
    if answer is None:
        raise ValueError("this scene is neither bright nor dark")
    return Question("ground", _phrase(rng, "ground"), answer, [])


def _ask_twice(world, scene: Scene, rng) -> Question:
    """The left or the right one of two equal digits, whose colours differ."""
    pairs = []
    for own in _places(scene).values():
        if len(own) == 2:
            left, right = sorted(own, key=lambda i: _middle(scene.objects[i])[0])
            a, b = scene.objects[left], scene.objects[right]
            if _middle(b)[0] - _middle(a)[0] >= _APART and a.colour != b.colour:
                pairs.append((left, right))
    pair = _pick(rng, pairs)
    side = int(rng.integers(2))
    item = scene.objects[pair[side]]
    text = _phrase(rng, "twice", d=item.digit, s=("left", "right")[side])
    return Question("twice", text, item.colour, [pair[side]])


def _ask_absent(world, scene: Scene, rng) -> Question:
    """Worded as a question for a colour, about a digit that is not there."""
    digit = _pick(rng, [d for d in range(10) if d not in _places(scene)])
    return Question("absent", scenes.phrase(rng, "colour", digit), NOWHERE, [])


_ASK = {
    "colour": _ask_about_one("colour"),
    "digit": _ask_as_the_demo("digit"),
    "quarter": _ask_about_one("quarter"),
    "exist": _ask_as_the_demo("exist"),
    "count": _ask_as_the_demo("count"),
    "pair": _ask_pair,
    "beside": _ask_beside,
    "total": _ask_total,
    "ground": _ask_ground,
    "twice": _ask_twice,
    "absent": _ask_absent,
}
