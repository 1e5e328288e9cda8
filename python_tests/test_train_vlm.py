"""The training of the study's models: what it teaches is the model that transformers runs."""

import hashlib
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "quality"))
import train_vlm
from eval_vlm import prompt
from vlm_batches import make_batch
from vlm_export import export
from vlm_losses import AttentionProbe, grounding_loss, logits_of
from vlm_prompt import EOS, IMAGE, PATCHES, VOCABULARIES, WORD_ID, share_picture, words_of
from world import FAMILIES, StudyWorld

import mi_pruner_cuda
from mi_pruner_cuda.demo import scenes

ARCHITECTURES = train_vlm.ARCHITECTURES
TEXTURES = 4  # they take most of a world's time


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request, tmp_path_factory):
    """A trainer after three steps of each stage, and its exported model and processor.

    Its weights are rounded to what the export stores.
    """
    folder = tmp_path_factory.mktemp(request.param)
    arguments = f"""
        --world study --architecture {request.param} --dense-steps 3 --vlm-steps 3 --dense-batch 2
        --batch 2 --questions 11 --exams 1 --state {folder}/state.pt --output {folder}/model
    """
    trainer = train_vlm.Trainer(train_vlm.parse_arguments(arguments.split()))
    reports = []
    step = trainer._train_step
    trainer._train_step = lambda *given: reports.append(step(*given)) or reports[-1]
    trainer.run()
    export(trainer.architecture, trainer.model, trainer.words, trainer.args.output)
    for weight in trainer.model.parameters():
        weight.data = weight.half().float()
    trainer.model.eval()
    model = AutoModelForImageTextToText.from_pretrained(trainer.args.output).eval()
    return trainer, reports, model, AutoProcessor.from_pretrained(trainer.args.output)


def study_batch(size, questions=0, **more):
    world, rng = StudyWorld("train", 2, TEXTURES), np.random.default_rng(5)
    return make_batch(world, rng, size, questions, families=FAMILIES, **more)


def batch_of(family, size, questions):
    """Questions of one family, about scenes that allow it."""

    class Allows(StudyWorld):
        def scene(self, rng, crowded=False):
            while True:
                scene = super().scene(rng, crowded)
                try:
                    self.ask(scene, np.random.default_rng(0), family)
                    return scene
                except ValueError:
                    continue

    weights = [float(name == family) for name in FAMILIES]
    rng = np.random.default_rng(5)
    return make_batch(Allows("train", 2, TEXTURES), rng, size, questions, False, weights, FAMILIES)


def scenes_and_questions(count):
    """A scene and one of its questions of each family, in turn."""
    world, rng = StudyWorld("test", 3, TEXTURES), np.random.default_rng(6)
    found = []
    while len(found) < count:
        scene = world.scene(rng)
        try:
            question = world.ask(scene, rng, FAMILIES[len(found) % len(FAMILIES)])
        except ValueError:
            continue
        found.append((scene, question))
    return found


def test_three_steps_of_each_stage(trained):
    trainer, reports, _, _ = trained
    assert len(reports) == 6
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert {"dense", "align"} <= set(reports[0]) and "answer" not in reports[0]
    assert {"answer", "ground", "align"} <= set(reports[-1])
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())
    saved = torch.load(trainer.args.state, weights_only=True)
    assert (saved["world"], saved["stage"]) == ("study", 2)


def test_every_weight_is_taught(trained):
    """Both stages together change each matrix; a forgotten module would keep its start."""
    trainer, _, model, _ = trained
    torch.manual_seed(trainer.args.seed)
    start = dict(trainer.architecture.build_model(trainer.words).named_parameters())
    still = [
        name
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and torch.equal(weight, start[name].half().float())
    ]
    assert not still


def test_questions_in_one_forward_are_the_exported_model_s_own(trained):
    """Eleven questions share a picture; each gets the logits that it gets alone, through the
    processor: the same pixels, marks, positions and mask."""
    trainer, _, model, processor = trained
    world, rng = StudyWorld("test", 3, TEXTURES), np.random.default_rng(6)
    drawn = []

    class Recorded(StudyWorld):
        def scene(self, *given):
            drawn.append(super().scene(*given))
            return drawn[-1]

    batch = make_batch(
        Recorded("test", 3, TEXTURES), np.random.default_rng(6), 1, 11, families=FAMILIES
    )
    shared = share_picture(trainer.architecture, trainer.words, 11, "cpu")
    with torch.no_grad():
        rows = trainer.architecture.visual_rows(trainer.model, batch.pixels)
        taught = logits_of(trainer.model, rows, batch.tokens, shared)[0]
    world.scene(rng)  # the same draws once more, to know the questions' words
    for index in range(11):
        question = world.ask(drawn[0], rng)
        inputs = processor(
            images=[drawn[0].image], text=[prompt(processor, question.text)], return_tensors="pt"
        )
        length = len(question.text.split()) + 2
        assert inputs["input_ids"][0, -length:].tolist() == batch.tokens[0, index, :length].tolist()
        assert (inputs["input_ids"] == IMAGE).sum() == PATCHES
        with torch.no_grad():
            own = model(**inputs).logits[0, -length:]
        torch.testing.assert_close(taught[index, :length], own, rtol=0, atol=1e-4)


def test_the_exported_model_answers_and_is_pruned(trained):
    _, _, model, processor = trained
    pairs = scenes_and_questions(3)
    texts = [prompt(processor, question.text) for _, question in pairs]
    images = [scene.image for scene, _ in pairs]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    whole = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    with mi_pruner_cuda.attach(model, keep=0.25, tokenizer=processor) as pruner:
        pruned = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert [entry.tokens_after for entry in pruner.report] == [PATCHES // 4] * 3
        for entry, (_, question) in zip(pruner.report, pairs, strict=True):
            assert entry.grid[-2:] == (scenes.GRID, scenes.GRID)
            assert entry.query == [WORD_ID[word] for word in question.text.split()]
    start = inputs["input_ids"].shape[1]
    assert start < whole.shape[1] <= start + 3 and start < pruned.shape[1] <= start + 3


@pytest.mark.parametrize(
    ("step", "questions", "crowded", "expected", "mean"),
    [
        (0, 0, True, "319440da19459d2a", -0.339032),
        (1, 6, False, "098a75d710b97725", -0.745066),
    ],
    ids=["dense", "vlm"],
)
def test_the_demo_s_batches_are_as_ever(step, questions, crowded, expected, mean):
    """Numbers recorded when the shipped model was trained."""
    weights = train_vlm.parse_arguments([]).mixture if questions else None
    rng = np.random.default_rng([0, 7, step, 0])
    batch = make_batch(scenes.World("train", 0), rng, 2, questions, crowded, weights)
    digest = hashlib.sha256()
    for name in ["digit", "colour", "quarter", "centre", "tokens", "targets", "family", "asked"]:
        digest.update(getattr(batch, name).long().numpy().tobytes())
    assert digest.hexdigest()[:16] == expected
    assert batch.pixels.mean().item() == pytest.approx(mean, abs=1e-4)
    assert len(words_of("demo")) == 68


def test_ids_agree():
    for world in VOCABULARIES:
        for architecture in ARCHITECTURES.values():
            words = words_of(world, architecture.MARKS)
            assert len(set(words)) == len(words)
            known = [word for word in words if word not in architecture.MARKS]
            assert [WORD_ID[word] for word in known] == list(range(len(known)))


def test_every_family_fits_its_block():
    """The end of each answer is taught: no question is cut."""
    even = [1 / len(FAMILIES)] * len(FAMILIES)
    batch = study_batch(8, 32, weights=even)
    assert set(batch.family.flatten().tolist()) == set(range(len(FAMILIES)))
    assert ((batch.targets == EOS).sum(-1) == 1).all()


def test_weights_that_leave_no_question():
    weights = [float(family == "ground") for family in FAMILIES]
    with pytest.raises(ValueError, match="weights: got"):
        study_batch(32, 1, weights=weights)


class Given:
    """A probe whose attention is given."""

    def __init__(self, attention):
        self.attention = attention  # (layer, head) -> patches (B, Q, 256) or more

    def rows(self, layer, head, at, mask):
        return self.attention[layer, head].expand(*at.shape, mask.shape[-1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropped_rows_are_as_if_masked(architecture):
    """The language model reads the kept rows at their own positions, and nothing of the others."""
    architecture = ARCHITECTURES[architecture]
    model = architecture.build_model(words_of("study", architecture.MARKS)).eval()
    batch = batch_of("pair", 2, 3)
    shared = share_picture(architecture, words_of("study", architecture.MARKS), 3, "cpu")
    rows = torch.randn(2, 256, 192, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(5, 256, 3)
    with torch.no_grad():
        few = logits_of(model, rows[:, kept], batch.tokens, shared.only(kept))
        gone = torch.ones(256, dtype=torch.bool)
        gone[kept] = False
        shared.mask[..., shared.rows.start : shared.rows.stop][..., gone] = torch.finfo().min
        masked = logits_of(model, rows, batch.tokens, shared)
    assert torch.allclose(few, masked, atol=1e-4)
    part = batch.only(kept)
    assert torch.equal(part.looks, batch.looks[..., kept])
    assert torch.equal(part.tokens, batch.tokens) and part.digit.shape == (2, len(kept))


def test_a_pair_is_looked_at_one_after_the_other():
    batch = batch_of("pair", 3, 4)
    digits = torch.tensor([WORD_ID[str(digit)] for digit in range(10)])
    for b, q in itertools.product(range(3), range(4)):
        named = [word for word in batch.tokens[b, q] if word in digits]
        for word, looks in zip(named, batch.looks[b, q], strict=True):
            seen = batch.digit[b][looks > 0]
            assert len(seen) and (seen == int((digits == word).nonzero())).all()
        assert torch.equal(batch.looks[b, q].sum(0), batch.asked[b, q])


def test_of_two_digits_the_answer_is_looked_at():
    batch = batch_of("beside", 3, 4)
    for b, q in itertools.product(range(3), range(4)):
        (answer,) = [t for t in batch.targets[b, q].tolist() if t >= 0][:-1]
        seen = batch.digit[b][batch.looks[b, q, 0] > 0]
        assert len(seen) and {WORD_ID[str(int(digit))] for digit in seen} == {answer}


def test_brightness_is_a_label_of_the_background():
    batch = batch_of("ground", 6, 1)
    words = {WORD_ID["dark"]: 0, WORD_ID["bright"]: 1}
    for b in range(6):
        answer = next(t for t in batch.targets[b, 0].tolist() if t >= 0)
        background = batch.digit[b] == 10
        assert (batch.bright[b][background] == words[answer]).all()
        assert (batch.bright[b][~background] == -100).all()


@pytest.mark.parametrize("family", ["ground", "absent"])
def test_nothing_to_look_at_is_not_taught(family):
    """No object is asked for and no word names one: heads 0 are free. "absent" does name a digit,
    which head 1 of layer 1 should look at."""
    batch = batch_of(family, 4, 4)
    shared = share_picture(ARCHITECTURES["llava"], words_of("study"), 4, "cpu")
    nowhere, first = torch.zeros(1), torch.zeros(shared.mask.shape[-1])
    first[0] = 1
    given = {(1, 0): nowhere, (1, 1): nowhere, (2, 0): nowhere, (2, 1): first}
    loss = grounding_loss(Given(given), batch, shared)
    unseen = 0 if family == "ground" else -math.log(1e-3)
    assert loss.item() == pytest.approx(unseen - math.log(1 + 1e-4), abs=1e-5)


@pytest.mark.parametrize("looks_at", ["its own", "the other's"])
@pytest.mark.parametrize("family", ["pair", "beside"])
def test_each_word_looks_at_what_it_names(family, looks_at):
    """Of two words the first cannot know the second."""
    batch = batch_of(family, 2, 2)
    shared = share_picture(ARCHITECTURES["llava"], words_of("study"), 2, "cpu")
    content = torch.tensor([WORD_ID[word] for word in (*map(str, range(10)), *scenes.COLOURS)])
    step = torch.arange(batch.tokens.shape[-1])
    asks = step <= (batch.targets >= 0).float().argmax(-1, keepdim=True)
    both = batch.tokens[torch.isin(batch.tokens, content) & asks].view(2, 2, 2)
    read = []

    class Spy(Given):
        def rows(self, layer, head, at, mask):
            if (layer, head) != (1, 0):
                return super().rows(layer, head, at, mask)
            place = (at - shared.begin) % batch.tokens.shape[-1]
            read.append(batch.tokens.gather(-1, place[..., None])[..., 0])
            other = both.sum(-1) - read[-1]
            return named(read[-1] if looks_at == "its own" else other, batch, shared)

    even = torch.ones(1)
    others = {(1, 1): even, (2, 0): even, (2, 1): even}
    loss = grounding_loss(Spy(others), batch, shared)
    assert torch.equal(torch.stack(read, -1), both)
    blind = grounding_loss(Given({(1, 0): even * 0, **others}), batch, shared)
    gain = math.log(1 + 1e-3) - math.log(1e-3) if looks_at == "its own" else 0
    assert (blind - loss).item() == pytest.approx(gain, abs=1e-4)


@pytest.mark.parametrize("family", ["colour", "count", "pair", "twice", "quarter"])
def test_the_answer_looks_at_the_words_that_are_asked_about(family):
    """Where it begins, and at the question's words, not the answer's."""
    batch = batch_of(family, 2, 3)
    shared = share_picture(ARCHITECTURES["llava"], words_of("study"), 3, "cpu")
    sides = ("left", "right", "top", "bottom")
    content = (*map(str, range(10)), *scenes.COLOURS, *sides)
    content = torch.tensor([WORD_ID[word] for word in content])
    start = (batch.targets >= 0).float().argmax(-1)
    step = torch.arange(batch.tokens.shape[-1])
    words = torch.isin(batch.tokens, content) & (step <= start[..., None])
    assert words.any(-1).all()

    class Sees(Given):
        def rows(self, layer, head, at, mask):
            if (layer, head) != (1, 1):
                return super().rows(layer, head, at, mask)
            block = shared.begin + batch.tokens.shape[-1] * torch.arange(3)
            assert torch.equal(at, block + start)
            seen = torch.zeros(*at.shape, mask.shape[-1])
            share = words / words.sum(-1, keepdim=True)
            return seen.scatter(-1, (block[:, None] + step).expand(2, -1, -1), share * self.mass)

    even = torch.ones(1)
    found = []
    for mass in (1.0, 0.5):
        probe = Sees({(1, 0): even, (2, 0): even, (2, 1): even})
        probe.mass = mass
        found.append(grounding_loss(probe, batch, shared).item())
    assert found[1] - found[0] == pytest.approx(math.log(1.001 / 0.501), abs=1e-4)


def named(words, batch, shared):
    """All attention on the patches of the digit or colour of each word (B, Q)."""
    rows = torch.zeros(*words.shape, shared.mask.shape[-1])
    for b in range(len(words)):
        for q in range(words.shape[1]):
            (word,) = (w for w, i in WORD_ID.items() if i == words[b, q])
            if word.isdigit():
                patches = batch.digit[b] == int(word)
            else:
                patches = batch.colour[b] == scenes.COLOUR_NAMES.index(word)
            rows[b, q, shared.rows] = patches / patches.sum()
    return rows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_probe_is_the_model_s_own_attention(name):
    architecture = ARCHITECTURES[name]
    torch.manual_seed(1)
    words = words_of("study", architecture.MARKS)
    model = architecture.build_model(words).eval()
    for bias in (w for n, w in model.named_parameters() if n.endswith("bias")):
        torch.nn.init.normal_(bias, std=0.3)
    probe = AttentionProbe(model, (1, 2))
    batch, shared = study_batch(1, 2), share_picture(architecture, words, 2, "cpu")
    model.set_attn_implementation("eager")
    seen = {}
    for layer in (1, 2):
        attention = model.model.language_model.layers[layer].self_attn
        attention.register_forward_hook(lambda m, a, out, n=layer: seen.update({n: out[1]}))
    at = shared.begin + torch.tensor([[3, 17]])
    with torch.no_grad():
        logits_of(model, architecture.visual_rows(model, batch.pixels), batch.tokens, shared)
        for layer, head in ((1, 0), (2, 1)):
            got = probe.rows(layer, head, at, shared.mask)
            torch.testing.assert_close(got[0], seen[layer][0, head, at[0]], rtol=0, atol=1e-5)


def trained_options(path, *more):
    return train_vlm.parse_arguments(["--state", str(path), *more])


def test_unaligned_models_have_a_name_and_a_loss_of_their_own():
    args = train_vlm.parse_arguments(["--world", "study", "--align", "0", "--seed", "2"])
    assert args.state.name == "train_study-llava-2-unaligned.pt"
    assert args.output.parts[-3:] == ("build", "models", "study-llava-2-unaligned")
    trainer = train_vlm.Trainer(args)
    batch = study_batch(1, crowded=True)
    loss, report = trainer._loss(trainer.stages[0], batch)
    assert "align" not in report and loss.item() == pytest.approx(report["dense"])
    args.align = 0.2
    aligned, report = trainer._loss(trainer.stages[0], batch)
    assert aligned.item() == pytest.approx(report["dense"] + report["align"])


def test_a_state_of_another_setting_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    first = train_vlm.Trainer(trained_options(path))
    first.step = 7
    first.save()
    assert train_vlm.Trainer(trained_options(path)).step == 7
    for option, value in (
        ("--align", "0"), ("--ground", "1"), ("--seed", "1"), ("--world", "study"),
        ("--architecture", "qwen"),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match=f"{option}: got"):
            train_vlm.Trainer(trained_options(path, option, value))


@pytest.mark.parametrize(
    "given", ["--align -1", "--ground nan", "--mixture 1 2", "--mixture 0 0 0 0 0"]
)
def test_arguments_are_checked(given, capsys):
    with pytest.raises(SystemExit):
        train_vlm.parse_arguments(given.split())
    assert f"{given.split()[0]}: got" in capsys.readouterr().err
