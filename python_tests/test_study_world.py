"""The scenes and questions of the accuracy study: every answer follows from its scene."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "quality"))
from world import FAMILIES, STRESS, TOTALS, VOCABULARY, StudyWorld

from mi_pruner_cuda.demo import scenes


@pytest.fixture(scope="module")
def asked():
    """family -> (scene, question), of many scenes."""
    world, rng = StudyWorld("test", 3), np.random.default_rng(4)
    found = {family: [] for family in FAMILIES}
    for _ in range(250):
        scene = world.scene(rng)
        for family in FAMILIES:
            try:
                found[family].append((scene, world.ask(scene, rng, family)))
            except ValueError:
                continue
    return found


def middle(item, axis):
    return (item.box[axis] + item.box[axis + 2]) / 2


def by_hand(scene, question):
    """The answer, from the words of the question and the objects of the scene."""
    words = question.text.split()
    digits = [int(w) for w in words if w.isdigit()]
    colours = [w for w in words if w in scenes.COLOURS]
    of_digit = [item for item in scene.objects if digits and item.digit == digits[0]]
    shades = [item.colour for item in scene.objects]
    match question.family:
        case "colour":
            (item,) = of_digit
            return item.colour
        case "quarter":
            (item,) = of_digit
            return item.quarter
        case "digit":
            (item,) = [i for i in scene.objects if i.colour == colours[0]]
            return str(item.digit)
        case "exist":
            return "yes" if of_digit else "no"
        case "count":
            return scenes.COUNT_NAMES[shades.count(colours[0])]
        case "pair":
            (a,), (b,) = ([i for i in scene.objects if i.digit == d] for d in digits)
            return f"{a.colour} {b.colour}"
        case "beside":
            axis = int("top" in words or "bottom" in words)
            far = "right" in words or "bottom" in words
            (a,), (b,) = ([i for i in scene.objects if i.digit == d] for d in digits)
            assert (middle(a, axis) < 112) != (middle(b, axis) < 112)
            return str((a if (middle(a, axis) > 112) == far else b).digit)
        case "total":
            return TOTALS[len(scene.objects) - 5]
        case "ground":
            return "bright" if scene.brightness > 80 else "dark"
        case "twice":
            a, b = sorted(of_digit, key=lambda i: middle(i, 0))
            return (a if "left" in words else b).colour
        case "absent":
            assert not of_digit
            return "none"


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_from_the_scene(asked, family):
    assert len(asked[family]) > 25
    for scene, question in asked[family]:
        assert question.family == family
        assert question.answer == by_hand(scene, question)
        assert set(question.text.split()) | set(question.answer.split()) <= set(VOCABULARY)


# "absent" is worded as "colour", and the two are to be told apart: it has one answer.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "absent"])
def test_no_answer_is_a_safe_guess(asked, family):
    counts = Counter(question.answer for _, question in asked[family])
    assert counts.most_common(1)[0][1] < 0.7 * len(asked[family])


def test_objects_are_those_that_decide(asked):
    for family in FAMILIES:
        for scene, question in asked[family]:
            items = [scene.objects[i] for i in question.objects]
            if family in ("colour", "quarter", "twice", "digit"):
                assert len(items) == 1
            elif family == "beside":
                assert {str(i.digit) for i in items} == set(question.text.split()) & set(
                    "0123456789"
                )
            elif family == "exist":
                named = [i for i in scene.objects if str(i.digit) in question.text.split()]
                assert items == named
            elif family == "total":
                assert len(items) == len(scene.objects)
            elif family in ("ground", "absent"):
                assert items == []


def test_scenes_repeat_some_digits_and_the_demos_none(asked):
    scenes_here = {id(scene): scene for scene, _ in asked["total"]}.values()
    repeated = [len({i.digit for i in s.objects}) < len(s.objects) for s in scenes_here]
    assert 0.2 < np.mean(repeated) < 0.6
    assert sum(STRESS.values(), ()) == FAMILIES


def test_the_demos_scenes_are_what_they_were():
    """The same draws as before: the shipped picture is scene 5."""
    from PIL import Image

    from mi_pruner_cuda import demo

    shipped = np.asarray(Image.open(demo.scene_path()))
    assert np.array_equal(np.asarray(scenes.render(5).image), shipped)


def test_brightness_is_the_backgrounds():
    for seed in range(5):
        scene = scenes.render(seed)
        shown = np.asarray(scene.image, float)
        empty = np.ones(shown.shape[:2], bool)
        for item in scene.objects:
            left, top, right, bottom = item.box
            empty[top:bottom, left:right] = False
        assert abs(shown[empty].mean() - scene.brightness) < 4
