"""Calibrating a model: what is observed of it, calibrate, attach, files of pairs, the command."""

import csv
import importlib
import inspect
import json
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from tiny_models import SQUARE, Prompt, inputs_for
from zoo import FAMILIES, FIRST_WORD, language_model_call, language_model_of

from mi_pruner_cuda import Critic, Selection, attach, calibrate, demo, select
from mi_pruner_cuda.commands import calibrate as command
from mi_pruner_cuda.commands import main
from mi_pruner_cuda.critic import METHODS
from mi_pruner_cuda.critic.observe import Observer
from mi_pruner_cuda.critic.pairs import read_pairs
from mi_pruner_cuda.huggingface import choose

torch.set_num_threads(1)

BENCH = Path(__file__).resolve().parents[1] / "bench/quality"

# ---- what is observed of a model ----


def seen_by_attach(model, inputs):
    """Rows and words that attach compares, of a prompt's images together."""
    seen = []

    def spy(visual, text, keep):
        seen.append((visual, text))
        n = len(visual)
        return Selection(torch.arange(n), torch.zeros(n), n, "selected")

    options = {"budget": "pooled", "video_budget": "per-video", "selector": spy}
    with attach(model, keep=1.0, **options), torch.no_grad():
        model(**inputs)
    return torch.cat([visual for visual, _ in seen]), seen[0][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_it_sees_what_attach_compares_in_every_family(name):
    family = FAMILIES[name]
    model = family.build()
    inputs = family.inputs(model, [[FIRST_WORD, family.picture(0), *range(30, 35)]])
    rows, words = seen_by_attach(model, inputs)
    before = model(**inputs).logits
    with Observer(model, None, (0, 1)) as observer:
        got = observer.observe(inputs)
    unit = torch.nn.functional.normalize
    assert torch.equal(got.visual, unit(rows, dim=-1))
    assert torch.equal(got.text, unit(words, dim=-1))
    assert got.logits.shape == (len(words), len(rows)) and got.logits.isfinite().all()
    assert torch.equal(model(**inputs).logits, before)  # no hook is left


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen3_vl", "gemma3"])
def test_logits_are_those_of_the_layer_before_rotary_positions(name):
    """By hand, head by head, of the first layer, which sees the merged embeddings."""
    family = FAMILIES[name]
    model = family.build()
    inputs = family.inputs(model, [[FIRST_WORD, family.picture(0), *range(30, 35)]])
    call = language_model_call(model, inputs)
    layer = language_model_of(model).layers[0]
    attention = layer.self_attn
    with Observer(model, None, (0,)) as observer:
        got = observer.observe(inputs)
    with torch.no_grad():
        hidden = layer.input_layernorm(call["inputs_embeds"])[0]
        made = [getattr(attention, n)(hidden) for n in ("q_proj", "k_proj")]
    heads = [x.view(len(hidden), -1, attention.head_dim) for x in made]
    norms = [getattr(attention, n, None) for n in ("q_norm", "k_norm")]
    queries, keys = (
        x if norm is None else norm(x).detach() for x, norm in zip(heads, norms, strict=True)
    )
    (visual,) = family.visuals([[FIRST_WORD, family.picture(0), *range(30, 35)]], inputs)[0]
    content = [c for i, c in enumerate(visual.columns) if i not in visual.breaks]
    with attach(model, keep=1.0) as pruner, torch.no_grad():
        model(**inputs)
    query = pruner.report[0].query
    asked = [c for c, i in enumerate(inputs["input_ids"][0].tolist()) if i in query]
    shared = queries.shape[1] // keys.shape[1]
    expected = torch.zeros(len(asked), len(content))
    for head in range(queries.shape[1]):
        expected += queries[asked, head] @ keys[content, head // shared].T
    expected *= attention.scaling / queries.shape[1]
    torch.testing.assert_close(got.logits, expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_is_seen_too():
    model = tiny_models.llava()
    (inputs,) = tiny_pairs(model, 1)
    with Observer(model, None, (0,)) as observer:
        expected = observer.observe(inputs)
    model.model.language_model.compile(backend="eager")
    with torch.no_grad():
        model(**inputs, use_cache=False)
    with Observer(model, None, (0,)) as observer:
        got = observer.observe(inputs)
    torch.testing.assert_close(got.logits, expected.logits)
    assert torch.equal(got.visual, expected.visual)
    torch._dynamo.reset()


def prompts(count=12):
    return [Prompt([20 + i, SQUARE, 40 + i, 60 + i]) for i in range(count)]


def tiny_pairs(model, count=12):
    return [inputs_for(model, [prompt]) for prompt in prompts(count)]


@pytest.mark.filterwarnings("ignore:calibrate")
@pytest.mark.parametrize("build", [tiny_models.llava, tiny_models.qwen])
@pytest.mark.parametrize("method", METHODS)
def test_calibrate_and_attach(build, method, tmp_path):
    model = build()
    critic = calibrate(model, None, tiny_pairs(model), method)
    assert critic.width == tiny_models.HIDDEN and critic.pairs == 12
    assert critic.model_type == model.config.model_type
    inputs = inputs_for(model, [Prompt([20, 21, SQUARE, 30, 31, 32])])
    rows, words = seen_by_attach(model, inputs)
    path = tmp_path / "critic.safetensors"
    critic.save(path)
    for given in (critic, str(path), path):
        with attach(model, keep=0.25, critic=given) as pruner, torch.no_grad():
            model(**inputs)
        (entry,) = pruner.report
        expected = select(rows, words, 0.25, critic=critic)
        assert torch.equal(entry.indices, expected.indices)
        assert torch.equal(entry.scores, expected.scores)
        assert entry.critic == f"{method}, 12 pairs" == entry.to_dict()["critic"]


def test_attach_takes_a_matrix_and_tells_selectors():
    model = tiny_models.llava()
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30, 31])])
    rows, words = seen_by_attach(model, inputs)
    matrix = torch.randn(tiny_models.HIDDEN, tiny_models.HIDDEN)
    given = []

    def spy(visual, text, keep):
        given.append(text)
        return select(visual, text, keep)

    with torch.no_grad():
        with attach(model, keep=0.25, critic=matrix, explain=True) as pruner:
            model(**inputs)
        with attach(model, keep=0.25, critic=matrix, selector=spy):
            model(**inputs)
    assert torch.equal(pruner.report[0].indices, select(rows, words, 0.25, critic=matrix).indices)
    assert pruner.report[0].critic == "given"
    assert torch.equal(given[0], Critic(matrix).apply(words))
    with attach(model, keep=0.25, critic=matrix, query=None, redundancy=1.0) as pruner:
        model(**inputs)
    assert pruner.report[0].critic == ""  # without words there is nothing to compare


def test_the_time_of_the_critic_is_selection_time(monkeypatch):
    model = tiny_models.llava()
    clock = iter(range(100))
    monkeypatch.setattr(choose.time, "perf_counter", lambda: float(next(clock)))

    def seconds(**options):
        with attach(model, keep=0.25, **options) as pruner, torch.no_grad():
            model(**inputs_for(model, [Prompt([20, SQUARE, 30, SQUARE, 31])]))
        return [entry.seconds for entry in pruner.report]

    # One tick a selection, and one for both images' words.
    assert seconds() == [1.0, 1.0]
    assert seconds(critic=torch.eye(tiny_models.HIDDEN)) == [1.5, 1.5]


def test_a_file_beside_the_model_counts_only_when_asked_for(tmp_path):
    model = tiny_models.llava()
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30, 31])])
    model.config._name_or_path = str(tmp_path)

    def used(**options):
        with attach(model, keep=0.25, **options) as pruner, torch.no_grad():
            model(**inputs)
        return pruner.report[0].critic

    assert used(critic="auto") == ""
    Critic(torch.eye(tiny_models.HIDDEN), "cca", 50).save(tmp_path / "mipruner_critic.safetensors")
    assert used(critic="auto") == "cca, 50 pairs"
    assert used() == ""


@pytest.mark.parametrize(
    "critic, error, message",
    [
        (torch.eye(5), ValueError, "critic: got width 5, allowed is that of the model's rows, 32"),
        (torch.eye(32).half(), TypeError, "critic: got dtype torch.float16"),
        (torch.eye(32) / 0, ValueError, "critic: got NaN or Inf"),
        (Critic(torch.eye(32), model_type="qwen2_vl"), ValueError, "critic: got one fitted for"),
        ("nowhere.safetensors", FileNotFoundError, "critic: there is no file"),
        (7, TypeError, "critic: got int"),
    ],
)
def test_attach_refuses(critic, error, message):
    model = tiny_models.llava()
    with pytest.raises(error, match=message):
        attach(model, keep=0.25, critic=critic)
    attach(model, keep=0.25).detach()  # nothing is left of it


def test_calibrate_refuses():
    model = tiny_models.llava()
    pairs = tiny_pairs(model)

    def refuses(error, message, given=pairs, method="ridge", **options):
        with pytest.raises(error, match=message):
            calibrate(model, None, given, method, **options)

    refuses(ValueError, "pairs: got 4, allowed are at least 10", pairs[:4])
    refuses(ValueError, r"pairs\[0\]: there is no image", [inputs_for(model, [Prompt([20])])])
    empty = inputs_for(model, [Prompt([SQUARE])])
    refuses(ValueError, r"pairs\[1\]: the question is empty", [pairs[0], empty])
    two = inputs_for(model, prompts(2))
    refuses(ValueError, r"pairs\[0\]: input_ids: .*one prompt at a time", [two])
    refuses(TypeError, r"pairs\[0\]: got str", ["a picture"])
    refuses(ValueError, r"pairs\[0\]: got \(picture, text\) without a processor", [("a", "b")])
    refuses(ValueError, "layers: got .* allowed only with method 'attention'", layers=[0])
    refuses(ValueError, "layers: got 2, allowed are 0 to 1", method="attention", layers=[2])
    refuses(TypeError, "layers: got 0.5", method="attention", layers=[0.5])
    refuses(ValueError, "method: got 'best'", method="best")
    with attach(model, keep=0.5):
        refuses(RuntimeError, "it already has a pruner")
    refuses(RuntimeError, "training mode", given=[_train(model)])
    model.eval()
    calls = model.model.language_model._forward_pre_hooks
    assert not calls  # nothing is left of any of it


def _train(model):
    model.train()
    return {}


# ---- pairs in a file, and the command ----


def test_files_of_pairs(tmp_path):
    lines = [{"image": "a.png", "text": " a red\u2028 7 "}, {"image": "b/c.png", "text": "x, y"}]
    expected = [(tmp_path / "a.png", "a red\u2028 7"), (tmp_path / "b/c.png", "x, y")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n")
    assert read_pairs(path) == expected
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["number", "image", "text"])
        writer.writeheader()
        writer.writerows({"number": i} | line for i, line in enumerate(lines))
    assert read_pairs(tmp_path / "pairs.csv") == expected


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", "", "allowed are files ending .jsonl, .json, .csv"),
        ("a.jsonl", "", "has no pairs"),
        ("a.jsonl", '{"image": "a", "text": "b"}\n{"image": "a"}', "line 2 of .* has no text"),
        ("a.jsonl", '{"image": 3, "text": "b"}', "line 1 of .* has no image"),
        ("a.jsonl", "[1]", "line 1 of .* has no image"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.csv", "image,caption\na,b\n", "line 2 of .* has no text"),
        ("a.csv", b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_files_that_hold_no_pairs(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"pairs: .*{message}"):
        read_pairs(path)
    with pytest.raises(FileNotFoundError, match="pairs: there is no file"):
        read_pairs(tmp_path / "none.csv")


def test_the_pairs_of_the_trained_worlds(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    pairs = importlib.import_module("pairs")
    vlm_prompt = importlib.import_module("vlm_prompt")
    pairs.write(tmp_path, "study", count=3, seed=1)
    words = set(vlm_prompt.words_of("study"))
    scenes = [scene for scene, _ in pairs.draw("study", count=3, seed=1)]
    for kind in ("captions", "questions"):
        found = read_pairs(tmp_path / f"{kind}.jsonl")
        assert [picture.name for picture, _ in found] == ["00000.png", "00001.png", "00002.png"]
        assert all(set(text.split()) <= words for _, text in found)
        for (picture, text), scene in zip(found, scenes, strict=True):
            assert Image.open(picture).tobytes() == scene.image.tobytes()
            if kind == "captions":
                assert all(f"{item.colour} {item.digit}" in text for item in scene.objects)


@pytest.fixture(scope="module")
def scene_pairs(tmp_path_factory):
    """A dozen training scenes, each with a question."""
    from mi_pruner_cuda.demo import scenes

    folder = tmp_path_factory.mktemp("pairs")
    lines = []
    for seed in range(12):
        scene = scenes.render(seed, "train")
        scene.image.save(folder / f"{seed}.png")
        text = scenes.ask(scene, "colour", seed).text
        lines.append(json.dumps({"image": f"{seed}.png", "text": text}))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def run(*argv):
    return main([*map(str, argv), "--threads", "1"])


def test_the_command_and_what_it_is_for(scene_pairs, tmp_path, capsys):
    model, output = demo.model_path(), tmp_path / "critic.safetensors"
    calibrating = ("calibrate", "--model", model, "--pairs", scene_pairs, "--output", output)
    assert run(*calibrating, "--method", "attention", "--layers", "0,1") == 0
    out, err = capsys.readouterr()
    assert err == "" and "pairs     10 fitted, 2 held out" in out
    assert "correlation with the model's attention logits" in out
    critic = Critic.load(output)
    assert (critic.method, critic.pairs, critic.model_type) == ("attention", 12, "llava")
    assert critic.held_out > 0.7
    numbers = tmp_path / "numbers.json"
    asking = (
        "prune",
        "--model",
        model,
        "--image",
        demo.scene_path(),
        "--question",
        "is there a 3?",
    )
    more = ("--max-new-tokens", "2", "--json", numbers, "--critic")
    assert run(*asking, *more, output) == 0
    assert "critic    attention, 12 pairs" in capsys.readouterr().out
    with_critic = json.loads(numbers.read_text())["images"][0]
    assert with_critic["critic"] == "attention, 12 pairs"
    assert run(*asking, *more, "auto") == 0
    assert "critic    none beside the model" in capsys.readouterr().out
    without = json.loads(numbers.read_text())["images"][0]
    assert without["critic"] == "" and without["scores"] != with_critic["scores"]


def test_the_command_offers_every_method():
    """It has the names of its own, so that --help needs no torch; the first is the default."""
    assert tuple(METHODS) == command.METHODS
    default = inspect.signature(calibrate).parameters["method"].default
    assert default == command.METHODS[0] == "whitening"


def test_the_command_says_when_the_pairs_do_not_do(scene_pairs, tmp_path, capsys):
    output = tmp_path / "critic.safetensors"
    calibrating = ("calibrate", "--model", demo.model_path(), "--pairs", scene_pairs)
    assert run(*calibrating, "--output", output, "--method", "ridge") == 0
    assert "warning: the held-out pairs do not bear out" in capsys.readouterr().err
    assert Critic.load(output).method == "ridge"


def test_mistakes_of_the_command(scene_pairs, tmp_path, capsys):
    good = {
        "--model": demo.model_path(),
        "--pairs": scene_pairs,
        "--output": tmp_path / "a.safetensors",
    }

    def mistake(*words, **changes):
        options = good | {f"--{name}": value for name, value in changes.items()}
        assert run("calibrate", *(x for item in options.items() for x in item)) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        assert all(word in err for word in words), err

    mistake("output: ", ".safetensors", output="a.bin")
    mistake("output: there is no folder", output="no/such/a.safetensors")
    mistake("pairs: there is no file", pairs="none.csv")
    mistake("layers: allowed only with", layers="0", method="cca")
    mistake("--layers", "'x'", layers="x")
    mistake("layers: got 9, allowed are 0 to 3", layers="9", method="attention")
    mistake("pairs: got 3, allowed are at least 10", limit=3)
    mistake("model: there is no folder", model="./none")
    lines = scene_pairs.read_text().splitlines()
    broken = scene_pairs.with_name("broken.jsonl")
    broken.write_text("\n".join([lines[0], '{"image": "none.png", "text": "is there a 3?"}']))
    mistake("pairs[1]: image: there is no file", pairs=broken)
    broken.write_text("\n".join([lines[0], '{"image": "0.png", "text": "is <image> a 3?"}']))
    mistake("pairs[1]: text: it contains '<image>'", pairs=broken)
    assert not (tmp_path / "a.safetensors").exists()
    prune = ("prune", "--model", good["--model"], "--image", demo.scene_path(), "--question", "3")
    assert run(*prune, "--critic", "none.safetensors") == 2
    assert capsys.readouterr().err == "error: critic: there is no file none.safetensors\n"
