"""The command line: what it prints and writes, and that mistakes are one line and status 2."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import mi_pruner_cuda
from mi_pruner_cuda import Mass, attach, defaults, demo, keep_count
from mi_pruner_cuda.commands import main, session, values

QUESTION = "what colour is the 7?"


@pytest.fixture(scope="module")
def checkpoint():
    """The shipped model: its absence fails the tests, as it would fail the demo."""
    return str(demo.model_path())


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Wider than high: the processor crops its centre."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    Image.fromarray(pixels).resize((400, 240), Image.BICUBIC).save(path)
    return str(path)


@pytest.fixture
def prune(checkpoint, picture, capsys):
    """Runs prune in this process: (status, stdout, stderr)."""

    def run(*more, model=checkpoint, image=picture, question=QUESTION):
        argv = ["prune", "--model", model, "--image", image, "--question", question]
        status = main([*argv, "--threads", "1", "--max-new-tokens", "2", *map(str, more)])
        return status, *capsys.readouterr()

    return run


def assert_mistake(outcome, *words):
    status, out, err = outcome
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["mi_pruner_cuda"].startswith(mi_pruner_cuda.__version__)
    assert lines["transformers"] == transformers.__version__
    assert "llava, llava_next, llava_next_video" in lines["models"]
    assert torch.__version__ in out
    assert "torch.ops.mipruner" in out
    assert "available: baseline" in out


def test_models(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for spec in mi_pruner_cuda.huggingface.MODELS.values():
        (line,) = [
            row for row in out.splitlines() if row.split(maxsplit=1)[:1] == [spec.model_type]
        ]
        assert spec.name in line and spec.notes in line
        assert ("yes     yes" in line) == (spec.videos is not None)
    assert "python_tests/test_model_classes.py" in out


def test_info_without_transformers(capsys, monkeypatch):
    from importlib import metadata

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert main(["info"]) == 0
    assert "attach needs torch and transformers" in capsys.readouterr().out


def test_prune_writes_what_attach_says(prune, checkpoint, picture, tmp_path):
    numbers, plot = tmp_path / "numbers.json", tmp_path / "kept.png"
    page = tmp_path / "kept.html"
    files = ("--json", numbers, "--plot", plot, "--report", page)
    status, out, err = prune("--keep", "0.25", "--compare", *files)
    assert (status, err) == (0, "")
    got = json.loads(numbers.read_text())
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    image = Image.open(picture)
    inputs = processor(images=image, text=prompt, return_tensors="pt", add_special_tokens=False)
    answers = []
    for keep in (1.0, 0.25):
        with attach(model, keep=keep, tokenizer=processor) as pruner:
            ids = model.generate(**inputs, max_new_tokens=2)[:, inputs["input_ids"].shape[1] :]
            answers.append(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
    (report,) = pruner.report
    (entry,) = got["images"]
    assert entry["indices"] == report.indices.tolist()
    assert entry["scores"] == pytest.approx(report.scores.tolist(), abs=1e-5)
    assert entry["query"] == report.query == processor.tokenizer(QUESTION)["input_ids"]
    assert entry["grid"] == [16, 16]
    assert entry["file"] == picture
    assert (got["tokens_before"], got["tokens_after"]) == (256, keep_count(256, 0.25))
    assert [got["full"]["answer"], got["pruned"]["answer"]] == answers
    for answer in (got["full"], got["pruned"]):
        assert 0 < answer["prefill_ms"] <= answer["generate_ms"]
    assert got["full"]["selection_ms"] == 0
    assert 0 < got["pruned"]["selection_ms"] < got["pruned"]["prefill_ms"]
    lines = out.splitlines()
    assert f"question  {QUESTION}" in lines
    assert f"answer    {answers[0]}   (all tokens)" in lines
    assert f"answer    {answers[1]}" in lines
    assert "tokens    256 -> 64 (25 % kept)" in lines
    assert "timed     one call, after one to warm up" in out
    assert f"picture   {plot}" in lines
    assert Image.open(plot).size[0] > 500
    assert f"page      {page}" in lines
    assert QUESTION in page.read_text() and "speaks for" in page.read_text()
    words = [processor.tokenizer.decode([i]) for i in entry["query"]]
    assert entry["words"] == words and set(entry["speaks_for"]) <= set(range(len(words)))
    assert entry["keep_hash"] == f"{report.keep_hash:016x}"


def test_prune_with_two_images_options_and_a_count(prune, picture, tmp_path):
    numbers = tmp_path / "numbers.json"
    more = ["--redundancy", "0.5", "--estimator", "joint", "--positions", "renumbered"]
    more += ["--temperature", "0.2", "--dtype", "bfloat16", "--repeat", "2"]
    status, out, err = prune("--image", picture, "--keep", "3", "--json", numbers, *more)
    assert (status, err) == (0, "")
    got = json.loads(numbers.read_text())
    assert [entry["tokens_after"] for entry in got["images"]] == [3, 3]
    assert got["full"] is None
    options = (0.5, defaults.COVERAGE, 0.2, "joint", "per-image", "renumbered")
    names = ("redundancy", "coverage", "temperature", "estimator", "budget", "positions")
    assert tuple(got[name] for name in names) == options
    assert "tokens    512 -> 6 (1.17 % kept)" in out
    assert "median of 2 calls, after one to warm up" in out
    assert "image 1   item 0, image 1: 256 (16 x 16) -> 3 tokens" in out


@pytest.mark.parametrize(
    ("keep", "after", "reason"),
    [("1", 1, "pruned"), ("1.0", 256, "kept all: keep = 1.0"), ("mass:0.5", None, "by mass")],
)
def test_keep(prune, tmp_path, keep, after, reason):
    numbers = tmp_path / "numbers.json"
    status, out, _ = prune("--keep", keep, "--json", numbers)
    assert status == 0
    got = json.loads(numbers.read_text())
    assert reason in got["images"][0]["reason"]
    if after is None:
        assert 1 < got["tokens_after"] < 256
        assert (got["redundancy"], got["coverage"]) == (0, 0)
    else:
        assert got["tokens_after"] == after
    assert "timed     one call, cold" in out


def test_keep_is_a_count_without_a_point_and_a_ratio_with_one():
    parsed = [values.keep(text) for text in ("64", "1", "1.0", ".5", "1e-1", "mass:0.9")]
    assert parsed == [64, 1, 1.0, 0.5, 0.1, Mass(0.9)]
    assert [type(value) for value in parsed[:3]] == [int, int, float]


def broken(checkpoint, folder, *without):
    """A copy of the shipped model that lacks files."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*without))
    return str(folder)


def truncated(checkpoint, folder):
    """A copy whose weights are a download that broke off."""
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return str(folder)


def config_only(folder, config):
    config.save_pretrained(folder)
    return str(folder)


MODELS = {
    "missing folder": (lambda c, f: f"{f}/no/such", ["there is no folder"]),
    "file": (lambda c, f: f"{c}/config.json", ["is a file"]),
    "no config": (lambda c, f: broken(c, f, "config.json"), ["has no config.json"]),
    "no weights": (lambda c, f: broken(c, f, "*.safetensors"), ["cannot load the model"]),
    "half the weights": (truncated, ["cannot load the model"]),
    "no processor": (lambda c, f: broken(c, f, "*processor*"), ["processor"]),
    "no tokenizer": (lambda c, f: broken(c, f, "*token*", "chat*"), ["cannot load", "processor"]),
    "no template": (lambda c, f: broken(c, f, "chat*"), ["has no chat template"]),
    "text only": (
        lambda c, f: config_only(f, transformers.LlamaConfig()), ["'llama'", "no vision_config"],
    ),
    "unknown kind": (
        lambda c, f: config_only(f, transformers.CLIPConfig()), ["'clip'", "no image_token_id"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_used(case, prune, checkpoint, tmp_path):
    make, words = MODELS[case]
    assert_mistake(prune(model=make(checkpoint, tmp_path / "model")), "model: ", *words)


ARGUMENTS = {
    "keep 0": (["--keep", "0"], ["--keep", "'0'"]),
    "keep 0.0": (["--keep", "0.0"], ["--keep", "'0.0'"]),
    "keep 1.5": (["--keep", "1.5"], ["--keep", "ratio in (0, 1]"]),
    "keep negative": (["--keep=-3"], ["--keep", "'-3'"]),
    "keep nan": (["--keep", "nan"], ["--keep", "'nan'"]),
    "keep word": (["--keep", "some"], ["--keep", "'some'"]),
    "keep mass": (["--keep", "mass:2"], ["--keep", "'mass:2'"]),
    "temperature 0": (["--temperature", "0"], ["--temperature", "a number > 0"]),
    "temperature nan": (["--temperature", "nan"], ["--temperature", "a number > 0"]),
    "redundancy": (["--redundancy=-1"], ["--redundancy", "a number >= 0"]),
    "estimator": (["--estimator", "best"], ["--estimator", "'best'"]),
    "repeat": (["--repeat", "0"], ["--repeat", "integer >= 1"]),
    "device": (["--device", "nowhere"], ["device: nowhere is not available"]),
    "plot folder": (["--plot", "no/such/a.png"], ["plot: there is no folder no/such"]),
    "report folder": (["--report", "no/such/a.html"], ["report: there is no folder no/such"]),
    "report ending": (["--report", "a.png"], ["report: got 'a.png'", ".html"]),
    "budget": (["--budget", "each"], ["--budget", "'per-crop'"]),
    "plot ending": (["--plot", "a.doc"], ["plot: got 'a.doc'"]),
    "json folder": (["--json", "no/such/a.json"], ["json: there is no folder no/such"]),
    "unknown": (["--what"], ["--what"]),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_wrong_argument(case, prune):
    more, words = ARGUMENTS[case]
    assert_mistake(prune(*more), *words)


def test_a_wrong_image_or_question(prune, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    assert_mistake(prune(image="no/such.png"), "image: there is no file no/such.png")
    assert_mistake(prune(image=__file__), "image: ", "is not a picture")
    assert_mistake(prune(image=str(damaged)), "image: ", "is not a picture")
    assert_mistake(prune(question="  "), "--question", "empty")
    assert_mistake(prune(question="zebra <s>"), "question: ", "has no word that the model knows")
    assert_mistake(prune(question="what is <image>?"), "question: ", "stands for an image")


@pytest.fixture
def scores(prune, tmp_path):
    """What prune says of a picture: scores by token, and the answer."""

    def of(path):
        status, _, err = prune("--json", tmp_path / "numbers.json", image=str(path))
        assert (status, err) == (0, "")
        got = json.loads((tmp_path / "numbers.json").read_text())
        return got["images"][0]["scores"], got["pruned"]["answer"]

    return of


def test_a_picture_is_seen_as_a_viewer_shows_it(scores, picture, tmp_path):
    """16 bits are scaled, EXIF turns the picture, and transparency lies on white."""
    grey = np.asarray(Image.open(picture).convert("L"))
    paths = {
        name: tmp_path / f"{name}.png" for name in ("grey", "deep", "turned", "white", "clear")
    }
    Image.fromarray(grey).save(paths["grey"])
    Image.fromarray(grey.astype(np.uint16) * 257).save(paths["deep"])
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by 90 degrees, counterclockwise
    Image.fromarray(np.rot90(grey, -1)).save(paths["turned"], exif=exif)
    alpha = np.where(np.arange(grey.shape[1]) < 200, 255, 0) + 0 * grey
    hidden = np.dstack([grey, grey, grey, alpha]).astype(np.uint8)
    Image.fromarray(hidden).save(paths["clear"])
    Image.fromarray(np.where(alpha, grey, 255).astype(np.uint8)).save(paths["white"])
    assert scores(paths["deep"]) == scores(paths["turned"]) == scores(paths["grey"])
    assert scores(paths["clear"]) == scores(paths["white"]) != scores(paths["grey"])


def test_pictures_that_cannot_be_seen_so(prune, tmp_path):
    Image.fromarray(np.full((9, 9), 70000, np.int32)).save(tmp_path / "i32.tif")
    assert_mistake(prune(image=str(tmp_path / "i32.tif")), "i32.tif", "what number is white")
    Image.fromarray(np.full((9, 9), 200, np.float32)).save(tmp_path / "f.tif")
    assert_mistake(prune(image=str(tmp_path / "f.tif")), "f.tif has floats outside [0, 1]")
    assert_mistake(prune(image=str(tmp_path)), "image: ", "cannot be read: Is a directory")


def test_a_picture_that_is_too_large(prune, tmp_path):
    path = str(tmp_path / "large.png")
    Image.new("1", (20000, 20000)).save(path)
    assert_mistake(prune(image=path), "large.png is too large", "400000000 pixels")


def test_a_picture_that_the_processor_refuses(prune, monkeypatch):
    def refuse(*_):
        raise ValueError("absolute aspect ratio must be smaller than 200")

    monkeypatch.setattr(session, "user_turn", refuse)
    assert_mistake(prune(), "image: the model's processor refuses it: absolute aspect ratio")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (400, 3)])
def test_small_and_narrow_pictures(prune, tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "small.png")
    files = ("--plot", tmp_path / "kept.png", "--report", tmp_path / "kept.html")
    status, _, err = prune(*files, image=str(tmp_path / "small.png"))
    assert (status, err) == (0, "")


def test_a_warning_of_the_plot_is_a_line(prune, tmp_path):
    status, _, err = prune("--plot", tmp_path / "kept.png", question="what colour is the \ue5a1 ?")
    assert status == 0
    assert err.startswith("warning: plot: no installed font has '\\ue5a1' (U+E5A1)")
    assert err.count("\n") == 1


def test_no_command(capsys):
    assert_mistake((main([]), *capsys.readouterr()), "demo | prune | calibrate | models | info")


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prune", "--help"])
    assert stop.value.code == 0
    assert "--redundancy" in capsys.readouterr().out


def test_a_fault_of_ours_keeps_its_traceback(prune, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(session.Session, "answer", fail)
    with pytest.raises(RuntimeError, match="not foreseen"):
        prune()


def test_global_settings_are_restored(prune):
    log = transformers.utils.logging

    def settings():
        return log.get_verbosity(), log.is_progress_bar_enabled(), torch.get_num_threads()

    found = settings()
    log.set_verbosity_info()
    log.enable_progress_bar()
    torch.set_num_threads(2)  # prune asks for one
    before = settings()
    try:
        assert prune()[0] == 0
        assert settings() == before
    finally:
        log.set_verbosity(found[0])
        if not found[1]:
            log.disable_progress_bar()
        torch.set_num_threads(found[2])


def test_the_prompt_begins_with_one_bos_token(checkpoint, picture, tmp_path):
    """Many tokenizers add one, and the chat template has written one already."""
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(tokenizer))
    adding = session.Session(str(folder))
    assert adding.processor.tokenizer("is")["input_ids"][0] == 1
    ids = adding.prompt([Image.open(picture)], QUESTION)["input_ids"][0].tolist()
    assert ids.count(1) == 1
    assert ids[0] == 1


def demo_lines(out):
    """What demo printed, by the word that begins the line; two answers."""
    pairs = [line.split(maxsplit=1) for line in out.splitlines()]
    answers = [rest for word, rest in pairs if word == "answer"]
    return dict(pairs), answers


def test_demo_offline_and_without_scikit_learn(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the demo wants the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    out_path = tmp_path / "demo.png"
    assert main(["demo", "--out", str(out_path), "--threads", "1", "--repeat", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines, (full, pruned) = demo_lines(out)
    with open(demo.scene_path().with_suffix(".json"), encoding="utf-8") as file:
        first = json.load(file)["questions"][0]
    assert lines["question"] == first["text"]
    assert lines["expected"] == first["answer"]
    assert full == f"{first['answer']}   (all 256 tokens)"
    assert pruned == f"{first['answer']}   (26 tokens)"
    assert lines["tokens"] == "256 -> 26 (10.2 % kept)"
    assert "ms pruned" in lines["prefill"]
    assert "ms with all tokens" in lines["prefill"]
    assert lines["picture"] == str(out_path)
    assert Image.open(out_path).size[0] > 500


def test_demo_with_a_question_of_ones_own(tmp_path, capsys):
    more = ["--threads", "1", "--repeat", "1", "--keep", "8", "--out", str(tmp_path / "a.png")]
    assert main(["demo", "--question", "What colour is the zebra?", *more]) == 0
    out = capsys.readouterr().out
    lines, _ = demo_lines(out)
    assert lines["tokens"].startswith("256 -> 8 ")
    assert lines["expected"].startswith("unknown")
    assert "does not know: zebra" in out


def test_demo_with_a_scene_of_ones_own(tmp_path, capsys):
    from mi_pruner_cuda.demo import scenes

    question = scenes.ask(scenes.render(5), scenes.FAMILIES[0], 5)
    more = ["--threads", "1", "--repeat", "1", "--out", str(tmp_path / "a.png")]
    assert main(["demo", "--seed", "5", *more]) == 0
    lines, _ = demo_lines(capsys.readouterr().out)
    assert lines["question"] == question.text
    assert lines["expected"] == question.answer


def test_demo_mistakes(tmp_path, capsys, monkeypatch):
    out = ["--out", str(tmp_path / "a.png")]
    assert_mistake((main(["demo", "--seed", "-1", *out]), *capsys.readouterr()), "seed: got -1")
    from mi_pruner_cuda.demo import scenes

    scenes._world.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert_mistake((main(["demo", "--seed", "5", *out]), *capsys.readouterr()), "scikit-learn")


def run_module(*arguments, folder):
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": ""}
    root = os.path.dirname(os.path.dirname(mi_pruner_cuda.__file__))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "mi_pruner_cuda", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_as_a_program(tmp_path):
    status, out, err = run_module("demo", "--repeat", "1", folder=tmp_path)
    assert (status, err) == (0, "")
    assert "256 -> 26" in out
    assert (tmp_path / "mipruner_demo.png").is_file()


def test_a_mistake_as_a_program(tmp_path, checkpoint):
    arguments = ["--model", checkpoint, "--image", "none.png", "--question", "is there a 3?"]
    assert_mistake(run_module("prune", *arguments, folder=tmp_path), "there is no file none.png")
