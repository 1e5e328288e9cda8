"""The demo: its scenes, and the model that ships with the package."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mi_pruner_cuda import attach, demo
from mi_pruner_cuda.demo import scenes


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(demo.model_path()).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(demo.model_path())


def answer(model, processor, image, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    said = output[0, inputs["input_ids"].shape[1] :]
    return processor.decode(said, skip_special_tokens=True).strip()


# ---- scenes ----


@pytest.mark.parametrize("seed", range(8))
def test_scenes_hold_what_they_say(seed):
    scene = scenes.render(seed)
    assert scene.image.size == (224, 224)
    assert 5 <= len(scene.objects) <= 9
    digits = [item.digit for item in scene.objects]
    assert len(set(digits)) == len(digits)
    for i, a in enumerate(scene.objects):
        left, top, right, bottom = a.box
        assert min(left, top) >= 0 and max(right, bottom) <= 224
        for b in scene.objects[:i]:
            apart = right <= b.box[0] or b.box[2] <= left or bottom <= b.box[1] or b.box[3] <= top
            assert apart, (a, b)
        # The brightest ink shows the named colour more than any other one.
        patch = np.asarray(scene.image, float)[top:bottom, left:right]
        ink = patch[a.ink > 0.9].mean(0)
        nearest = min(scenes.COLOURS, key=lambda c: np.abs(ink - scenes.COLOURS[c]).sum())
        assert nearest == a.colour


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_answers_follow_from_the_scene(family):
    asked = 0
    for seed in range(40):
        scene = scenes.render(seed)
        try:
            question = scenes.ask(scene, family, seed)
        except ValueError:
            continue  # no colour of this scene occurs exactly once
        asked += 1
        words = question.text.split()
        by_digit = {str(item.digit): item for item in scene.objects}
        named = [w for w in words if w.isdigit()]
        colours = [w for w in words if w in scenes.COLOURS]
        if family == "colour":
            assert question.answer == by_digit[named[0]].colour
        elif family == "quarter":
            assert question.answer == by_digit[named[0]].quarter
        elif family == "exist":
            assert question.answer == ("yes" if named[0] in by_digit else "no")
        elif family == "digit":
            (only,) = [i for i in scene.objects if i.colour == colours[0]]
            assert question.answer == str(only.digit)
        else:
            count = sum(i.colour == colours[0] for i in scene.objects)
            assert question.answer == scenes.COUNT_NAMES[count]
    assert asked > 20


def test_test_scans_are_never_trained_on():
    def scans(split):
        return {im.tobytes() for group in scenes._load_scans(split) for im in group}

    train, test = scans("train"), scans("test")
    assert not train & test
    assert len(test) / (len(train) + len(test)) == pytest.approx(0.2, abs=0.01)


# ---- the shipped model ----


def test_the_checkpoint_is_small_and_safe():
    files = list(demo.model_path().iterdir())
    assert sum(file.stat().st_size for file in files) <= 8 * 2**20
    assert not [file.name for file in files if file.suffix in (".bin", ".pt", ".pkl")]


def test_a_missing_checkpoint_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "_HERE", tmp_path)
    with pytest.raises(FileNotFoundError, match="is missing: reinstall the package"):
        demo.model_path()


def test_the_shipped_scene_is_answered_with_all_and_with_a_tenth(model, processor):
    image = Image.open(demo.scene_path())
    questions = json.loads(demo.scene_path().with_suffix(".json").read_text())["questions"]
    asked = {question["family"]: question for question in questions}
    assert set(asked) == set(scenes.FAMILIES)
    for family in ("colour", "digit"):
        text, expected = asked[family]["text"], asked[family]["answer"]
        assert answer(model, processor, image, text) == expected
        with attach(model, keep=0.1, redundancy=1.0, tokenizer=processor) as pruner:
            assert answer(model, processor, image, text) == expected
        assert (pruner.report.tokens_before, pruner.report.tokens_after) == (256, 26)


def test_a_question_of_unknown_words_is_no_question(model, processor):
    with pytest.raises(ValueError, match="query: the question is empty"):
        attach(model, keep=0.5, query="zzzz xylophone", tokenizer=processor)


def test_pruned_tokens_are_about_the_question(model, processor):
    """The most relevant tenth holds most of the asked digit's patches; chance holds a tenth."""
    found = []
    for seed in range(12):
        scene = scenes.render(seed)
        question = scenes.ask(scene, "colour", seed)
        by_relevance = {"redundancy": 0, "coverage": 0}
        with attach(model, keep=0.1, **by_relevance, tokenizer=processor) as pruner:
            answer(model, processor, scene.image, question.text)
        asked = np.isin(scenes.patch_owners(scene), question.objects)
        found.append(asked[pruner.report[0].indices.numpy()].sum() / asked.sum())
    assert np.mean(found) > 0.6


@torch.no_grad()
def test_it_answers_held_out_questions(model, processor):
    """A sample of what bench/quality/eval_vlm.py measures on 2,000 questions."""
    right = asked = 0
    for seed in range(1000, 1010):
        scene = scenes.render(seed)
        for family in scenes.FAMILIES:
            try:
                question = scenes.ask(scene, family, seed)
            except ValueError:
                continue
            asked += 1
            right += answer(model, processor, scene.image, question.text) == question.answer
    assert asked >= 40
    assert right / asked >= 0.85
