"""The demo model in llama.cpp against the same model in transformers.

llama.cpp loses a LLaVA tower's first row and puts the class row last (tiny_gguf/demo_vlm.py), so
row i of llama.cpp is row i + 1 of transformers.
"""

import json
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mi_pruner_cuda import attach, demo, ops
from mi_pruner_cuda.demo import scenes

_ROWS, _KEPT, _COLUMNS = 256, 26, 192
_HELD_OUT_SCENES = (2000, 2001)


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(demo.model_path()).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(demo.model_path())


@dataclass
class Case:
    """A question about a picture, and how many rows may answer it."""

    image: Image.Image
    question: str
    n_keep: int
    redundancy: float


@dataclass
class Answer:
    """What llama.cpp made of a case: prompt tokens (-1: the image), rows, logits, kept, words."""

    tokens: list[int]
    rows: np.ndarray
    logits: np.ndarray
    kept: list[int]
    text: str


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Every question twice: with all rows and with a tenth."""
    asked = [
        (Image.open(demo.scene_path()), question["text"])
        for question in json.loads(demo.scene_path().with_suffix(".json").read_text())["questions"]
    ]
    for seed in _HELD_OUT_SCENES:
        scene = scenes.render(seed)
        asked += [(scene.image, scenes.ask(scene, family, seed).text) for family in scenes.FAMILIES]
    return [Case(*one, *kept) for one in asked for kept in ((_ROWS, 0.0), (_KEPT, 1.0))]


@pytest.fixture(scope="module")
def answers(cases, processor, programs, models, tmp_path_factory) -> list[Answer]:
    out = tmp_path_factory.mktemp("answers")
    requests = []
    for i, case in enumerate(cases):
        case.image.save(out / f"{i}.png")
        prompt = _prompt(processor, case.question).replace("<image>", "<__media__>")
        fields = (out / f"{i}.png", prompt, case.n_keep, case.redundancy, case.question)
        requests.append("\t".join(map(str, fields)))
    lines = _run(programs / "answer", models / "demo", out, lines=requests)
    return [_read_answer(line, out / str(i)) for i, line in enumerate(lines)]


def _run(*command, lines: list[str]) -> list[str]:
    done = subprocess.run(
        [str(part) for part in command], input="".join(f"{line}\n" for line in lines),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(lines)
    return printed


def _read_answer(line: str, files) -> Answer:
    tokens, kept, text = line.split("\t")
    rows = np.fromfile(f"{files}.rows", np.float32).reshape(_ROWS, _COLUMNS)
    logits = np.fromfile(f"{files}.logits", np.float32)
    return Answer(_integers(tokens), rows, logits, _integers(kept), text.strip())


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def _prompt(processor, question: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


def _inputs(processor, case: Case):
    return processor(
        images=case.image, text=_prompt(processor, case.question), return_tensors="pt",
        add_special_tokens=False,
    )  # fmt: skip


# ---- the tokenizer ----


def test_every_question_has_the_tokens_of_transformers(processor, programs, models):
    questions = [
        template.format(d=digit, c=colour, w=word, a=article)
        for templates in scenes.TEMPLATES.values()
        for template in templates
        for digit, colour in zip(range(10), (*scenes.COLOURS, "red", "blue"), strict=True)
        for word, article in (("colour", "a"), ("color", "an"))
    ]
    odd = [
        "What COLOR is the 0?", "is it red,green or blue?!", "xylophone", "twothree 77 one two",
        "  blanks   around  ", "caf\u00e9 \u56f3 r\u00e9d \u00c9t\u00e9 red", "red\tgreen",
        "</s> red",
    ]  # fmt: skip
    texts = [*questions, *odd, *(_prompt(processor, question) for question in questions[:3])]
    lines = _run(programs / "tokenize", models / "demo" / "model.gguf", lines=texts)
    for text, line in zip(texts, lines, strict=True):
        expected = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert _integers(line) == expected, text


def test_a_prompt_has_the_tokens_of_transformers(answers, cases, processor):
    for answer, case in zip(answers, cases, strict=True):
        expected = _inputs(processor, case)["input_ids"][0].tolist()
        image = processor.tokenizer.convert_tokens_to_ids("<image>")
        first = expected.index(image)
        text = [token for token in expected if token != image]
        assert answer.tokens == [*text[:first], -1, *text[first:]]
        assert expected.count(image) == _ROWS


# ---- the vision tower ----


@torch.inference_mode()
def test_image_rows_are_those_of_transformers(answers, cases, model, processor, table):
    errors = []
    for answer, case in zip(answers, cases, strict=True):
        pixels = _inputs(processor, case)["pixel_values"]
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][0]
        every = model.model.multi_modal_projector(hidden).numpy()  # the class row, then 256
        expected = np.concatenate([every[2:], every[:1]])
        errors.append(_relative_error(answer.rows, expected))
        assert _relative_error(answer.rows, every[1:]) > 0.1, "llama.cpp no longer shifts rows"
    assert max(errors) < 1e-3
    table.note(f"demo model, {len(errors)} image embeddings: relative error {max(errors):.1e}")


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# ---- the selection and the text model ----


def test_kept_rows_are_those_of_the_operator(answers, cases, model, processor):
    table = model.get_input_embeddings().weight.detach()
    for answer, case in zip(answers, cases, strict=True):
        if case.n_keep == _ROWS:
            assert answer.kept == list(range(_ROWS))
            continue
        ids = processor.tokenizer(case.question, add_special_tokens=False)["input_ids"]
        indices, _ = ops.select(
            torch.from_numpy(answer.rows), table[ids], case.n_keep, redundancy=case.redundancy
        )
        assert answer.kept == indices.tolist()


@torch.inference_mode()
def test_logits_are_those_of_transformers_on_the_same_rows(answers, model, table):
    """The text model, at renumbered positions. llama.cpp's KV cache is float16."""
    embed, errors = model.get_input_embeddings(), []
    for answer in answers:
        rows = torch.from_numpy(answer.rows[answer.kept])
        parts = [rows if token < 0 else embed(torch.tensor([token])) for token in answer.tokens]
        expected = model(inputs_embeds=torch.cat(parts)[None]).logits[0, -1].numpy()
        errors.append(_relative_error(answer.logits, expected))
        assert answer.logits.argmax() == expected.argmax()
    assert max(errors) < 1e-2
    table.note(f"demo model, {len(errors)} logit vectors: relative error {max(errors):.1e}")


@torch.inference_mode()
def test_answers_are_those_of_transformers(answers, cases, model, processor, table):
    same = []
    for answer, case in zip(answers, cases, strict=True):
        inputs = _inputs(processor, case)
        how = {
            "keep": case.n_keep,
            "redundancy": case.redundancy,
            "coverage": 0.0,
            "positions": "renumbered",
        }
        with attach(model, tokenizer=processor, **how):
            output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
        said = output[0, inputs["input_ids"].shape[1] :]
        same.append(answer.text == processor.decode(said, skip_special_tokens=True).strip())
    for n_keep in (_ROWS, _KEPT):
        asked = [equal for equal, case in zip(same, cases, strict=True) if case.n_keep == n_keep]
        table.note(
            f"demo model, {n_keep} of {_ROWS} rows: {sum(asked)} of {len(asked)} answers are those "
            "of transformers"
        )
    assert all(same)
