"""bench/quality/lmms_eval_plugin: its arguments, task and table; and, where lmms-eval is installed,
runs of the demo model through it.

lmms-eval asks for much, and has an environment of its own: MIPRUNER_LMMS_EVAL names its
interpreter; else .venv/lmms-eval, which `make lmms-eval` builds; else this one.
"""

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mi_pruner_cuda import Mass, attach, demo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench" / "quality"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench/quality/lmms_eval_plugin"))
from eval_vlm import held_out_questions, prompt
from mipruner_lmms_eval import models
from mipruner_lmms_eval.arguments import option_names, split_arguments
from mipruner_lmms_eval.models import GenerationFailed
from mipruner_lmms_eval.tally import Tally

torch.set_num_threads(1)

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parent / "bench" / "quality" / "lmms_eval_plugin"
MODEL_NAMES = ["pretrained", "device", "batch_size"]
QUESTIONS, SEED = 20, 5


def load(path: Path):
    """A module by its file: `table` and `utils` are names that anything might have."""
    spec = importlib.util.spec_from_file_location(f"plugin_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table = load(PLUGIN / "table.py")
write_scenes = load(PLUGIN / "write_scenes.py")
scene_utils = load(PLUGIN / "scenes" / "utils.py")


# --- arguments


@pytest.mark.parametrize(
    ("given", "options", "own"),
    [
        ({}, None, {}),
        ({"pretrained": "x", "device": "cpu"}, None, {"pretrained": "x", "device": "cpu"}),
        ({"keep": 1.0, "redundancy": 0.5, "device": "cpu"}, None, {"device": "cpu"}),
        ({"keep": 1}, {"keep": 1}, {}),
        ({"keep": 64, "device": "cpu"}, {"keep": 64}, {"device": "cpu"}),
        ({"keep": 0.25, "query": "none"}, {"keep": 0.25, "query": None}, {}),
        ({"keep": 8, "query": "all"}, {"keep": 8, "query": "all"}, {}),
        ({"keep": "mass:0.9"}, {"keep": Mass(0.9)}, {}),
        ({"keep": 8, "coverage": 0.5}, {"keep": 8, "coverage": 0.5}, {}),
        (
            {"keep": 8, "redundancy": 1, "estimator": "cosine", "positions": "renumbered"},
            {"keep": 8, "redundancy": 1, "estimator": "cosine", "positions": "renumbered"},
            {},
        ),
    ],
)
def test_arguments_are_split(given, options, own):
    assert split_arguments(given, MODEL_NAMES) == (options, own)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"keep": 8, "redundancey": 1}, TypeError, "got redundancey.*did you mean redundancy"),
        ({"pretraned": "x"}, TypeError, "got pretraned.*did you mean pretrained"),
        ({"tokenizer": "x"}, TypeError, "got tokenizer"),
        ({"selector": "random"}, TypeError, "got selector"),
        ({"redundancy": 1.0}, TypeError, "redundancy without keep"),
        ({"keep": "some"}, ValueError, "keep: got 'some', allowed is a ratio"),
        ({"keep": True}, ValueError, "keep: got True"),
        ({"keep": "mass:much"}, ValueError, "keep: got 'mass:much'"),
        ({"keep": "mass:2"}, ValueError, "keep: got 'mass:2'"),
    ],
)
def test_arguments_that_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        split_arguments(given, MODEL_NAMES)


def test_every_option_of_attach_that_text_can_name_is_taken():
    parameters = set(inspect.signature(attach).parameters)
    assert set(option_names()) == parameters - {"model", "tokenizer", "selector", "explain"}
    for name in option_names():
        options, _ = split_arguments({"keep": 8, name: 3}, MODEL_NAMES)
        assert options == {"keep": 8, name: 3}


# --- the wrapped generate


def entry(image, before=0, after=0, seconds=0.0):
    return SimpleNamespace(image=image, tokens_before=before, tokens_after=after, seconds=seconds)


def test_tally_is_per_image():
    tally = Tally()
    tally.add([entry(0, 100, 10, 0.5), entry(None), entry(1, 50, 50)])
    tally.add([entry(0, 30, 30, 0.25)])
    assert tally.images == 3
    assert tally.means() == {
        "visual_tokens_before": 60.0,
        "visual_tokens_after": 30.0,
        "selection_seconds": 0.25,
    }


def test_generate_is_watched():
    tally = Tally()
    pruner = SimpleNamespace(report=[entry(0, 9, 3)])
    watched = models._watched(lambda *args, **kwargs: (args, kwargs), pruner, tally)
    assert watched(1, two=2) == ((1,), {"two": 2})
    assert (tally.before, tally.after) == (9, 3)

    def fail():
        raise ValueError("the question is empty")

    # Past what lmms-eval catches around generate.
    with pytest.raises(GenerationFailed, match="ValueError: the question is empty") as caught:
        models._watched(fail, pruner, tally)()
    assert not isinstance(caught.value, Exception)
    assert tally.images == 1


def test_unknown_class():
    with pytest.raises(AttributeError, match="mipruner_llava"):
        _ = models.mipruner_llava


# --- the task


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task") / "scenes"
    write_scenes.write_task(folder, QUESTIONS, SEED)
    return folder


def test_task_holds_the_questions_of_eval_vlm(task):
    records = [json.loads(line) for line in (task / "questions.jsonl").read_text().splitlines()]
    pairs = list(held_out_questions(QUESTIONS, SEED))
    assert len(records) == QUESTIONS
    for record, (scene, question) in zip(records, pairs, strict=True):
        assert record["question"] == question.text
        assert record["answer"] == question.answer
        assert record["family"] == question.family
        (shown,) = scene_utils.doc_to_visual(record)
        assert shown.tobytes() == scene.image.tobytes()
    assert len(list((task / "pictures").iterdir())) == QUESTIONS // 5
    assert (task / "mipruner_scenes.yaml").is_file() and (task / "utils.py").is_file()


def test_answers_count_word_for_word():
    doc = {"answer": "top left", "family": "quarter"}
    assert scene_utils.process_results(doc, ["top left "]) == {"exact_match": 1.0, "quarter": 1.0}
    assert scene_utils.process_results(doc, ["left"]) == {"exact_match": 0.0, "quarter": 0.0}


# --- the table


def result_file(folder, name, model_args, results, limit=None):
    path = folder / f"{name}_results.json"
    config = {"model_args": model_args, "limit": limit}
    path.write_text(json.dumps({"results": results, "config": config}))
    return path


MME = {"mme_perception_score,none": 1500.0, "mme_cognition_score,none": 300.0}


@pytest.fixture
def results(tmp_path):
    full = "pretrained=hub/llava-7b,device=cpu"
    result_file(tmp_path, "a", full, {"gqa": {"exact_match,none": 0.6}, "mme": MME})
    half = {name: score / 2 for name, score in MME.items()}
    pruned = f"{full},keep=64,redundancy=1"
    result_file(tmp_path, "b", pruned, {"gqa": {"exact_match,none": 0.45}})
    result_file(tmp_path, "c", pruned, {"mme": {**half, "alias": "mme"}})
    result_file(tmp_path, "d", f"{full},keep=1", {"gqa": {"exact_match,none": 0.3}})
    return tmp_path


def test_results_of_one_setting_make_a_row(results):
    rows = {row["method"]: row for row in table.read_results([results])}
    assert rows["**all tokens, measured**"]["scores"] == {"GQA": 60, "MME": 1800, "MME-P": 1500}
    pruned = rows["**mipruner** (redundancy=1)"]
    assert (pruned["keep"], pruned["scores"]) == (64, {"GQA": 45, "MME": 900, "MME-P": 750})
    assert pruned["source"] == "measured: hub/llava-7b"
    assert rows["**mipruner**"]["keep"] == 1
    assert len(rows) == 3


def test_rendered_table(results):
    columns = ["GQA", "POPE", "MME", "MME-P"]
    lines = table.render(columns, table.read_results([results]), {}).splitlines()
    assert lines == [
        "| keep | method | GQA | POPE | MME | MME-P | % of all tokens | source |",
        "|---|---|---|---|---|---|---|---|",
        "| 100 % | **all tokens, measured** | 60.0 | — | 1800 | 1500 | 100.0 | [1] |",
        # (45 / 60 + 900 / 1800) / 2: MME counts once
        "| 64 | **mipruner** (redundancy=1) | 45.0 | — | 900 | 750 | 62.5 | [1] |",
        # fewer tasks than with all tokens: no share
        "| 1 | **mipruner** | 30.0 | — | — | — | — | [1] |",
        "",
        "[1] measured: hub/llava-7b",
    ]


def test_same_task_twice_is_an_error(results):
    result_file(results, "e", "pretrained=hub/llava-7b", {"gqa": {"exact_match,none": 0.7}})
    with pytest.raises(ValueError, match=r"gqa with keep=1.0 is in .*a_results.json and in .*e_"):
        table.read_results([results])


def test_results_that_are_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no file that ends in _results\.json"):
        table.read_results([tmp_path])


def test_limited_runs_say_so(tmp_path):
    result_file(tmp_path, "a", "pretrained=x", {"gqa": {"exact_match,none": 0.6}}, limit=8)
    assert table.read_results([tmp_path])[0]["source"] == "measured: x, --limit 8"


def test_text_vqa_prefers_the_published_prompt():
    both = {
        "textvqa_val": {"exact_match,none": 0.46},
        "textvqa_val_ocr": {"exact_match,none": 0.58},
    }
    assert table.score("TextVQA", both) == pytest.approx(58)
    del both["textvqa_val_ocr"]
    assert table.score("TextVQA", both) == pytest.approx(46)
    assert table.score("TextVQA", {}) is None


def test_model_args_may_hold_commas():
    text = "pretrained=a/b,query=left, or right,keep=mass:0.9"
    assert table.parse_model_args(text) == {
        "pretrained": "a/b",
        "query": "left, or right",
        "keep": "mass:0.9",
    }
    assert table.parse_model_args({"keep": 64}) == {"keep": "64"}
    assert table.parse_model_args("") == {}


def test_published_numbers_have_sources():
    published = json.loads((PLUGIN / "published.json").read_text())
    for content in published["tables"].values():
        columns, rows = content["columns"], content["rows"]
        assert set(columns) <= set(table.TASKS)
        for row in rows:
            assert set(row) == {"keep", "method", "source", "scores"}
            assert row["source"] in published["sources"]
            assert row["scores"] and set(row["scores"]) <= set(columns)
            full = [r for r in rows if r["source"] == row["source"] and r["keep"] == 1.0]
            assert len(full) == 1
            # Every pruned row can be compared with all tokens of the same source.
            share = table.relative(row["scores"], full[0]["scores"], columns)
            assert 60 < share <= 100
        keys = [(row["keep"], row["method"], row["source"]) for row in rows]
        assert len(set(keys)) == len(keys)
        assert table.render(columns, rows, published["sources"]).count("| [") == len(rows)


def test_table_command():
    done = subprocess.run(
        [sys.executable, str(PLUGIN / "table.py"), "--table", "llava-1.5-7b"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "| 64 | DivPrune | 57.8 | 54.7 | 68.1 | 85.6 | 1674.4 | — | 95.0 | [1] |" in done.stdout


# --- through lmms-eval

# What a user's command runs, after checks that need lmms-eval. Each class is asked for by name.
CHILD = """
import inspect, runpy, sys
try:
    import torchvision
except RuntimeError:  # not the build that goes with this torch
    import torchvision_without_kernels
from lmms_eval.models import get_model
from lmms_eval.utils import load_yaml_config
from mipruner_lmms_eval.arguments import option_names
from mipruner_lmms_eval.models import MODELS, PREFIX
for name in MODELS:
    own = inspect.signature(get_model(name).__init__).parameters
    assert not set(own) & set(option_names()), name
    assert issubclass(get_model(PREFIX + name), get_model(name))
task = load_yaml_config(sys.argv[1], mode="full")
doc = {"question": "what is written ?", "ocr_tokens": ["stop", "now"]}
print("PROMPT", repr(task["doc_to_text"](doc, task["lmms_eval_specific_kwargs"]["default"])))
sys.argv[:] = ["lmms_eval", "--config", sys.argv[2]]
runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def lmms_eval_python():
    named = os.environ.get("MIPRUNER_LMMS_EVAL")
    built = HERE.parent / ".venv" / "lmms-eval" / "bin" / "python"
    # Absolute, as the runs are in a folder of their own; not resolved, or it would leave its venv.
    python = os.path.abspath(named or (built if built.exists() else sys.executable))
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lmms_eval') is None)"
    if subprocess.run([python, "-c", code], check=False).returncode:
        assert not named, f"MIPRUNER_LMMS_EVAL: {named} has no lmms_eval"
        pytest.skip("lmms-eval is not installed; `make lmms-eval` does it")
    return python


@pytest.fixture(scope="module")
def installed(lmms_eval_python, tmp_path_factory):
    """A folder with the plug-in as pip installs it: lmms-eval finds it by its entry point."""
    source = tmp_path_factory.mktemp("plugin") / "source"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__", "build"))
    target = source.parent / "installed"
    subprocess.run(
        [
            lmms_eval_python, "-m", "pip", "install", "--quiet", "--no-deps",
            "--no-build-isolation", "--target", str(target), str(source),
        ],
        check=True,
    )  # fmt: skip
    return target


def unanswerable(task: Path) -> None:
    """Adds a task whose one question has no word that the demo model knows: attach refuses it."""
    folder = task / "unanswerable"
    folder.mkdir()
    lines = (task / "questions.jsonl").read_text().splitlines()
    record = {**json.loads(lines[0]), "question": "zebra"}
    (folder / "questions.jsonl").write_text(json.dumps(record) + "\n")
    text = (task / "mipruner_scenes.yaml").read_text()
    text = text.replace("task: mipruner_scenes", "task: mipruner_unanswerable")
    (folder / "mipruner_unanswerable.yaml").write_text(text)
    shutil.copy(task / "utils.py", folder)


def answers_by_attach(task: Path, **options) -> list[str]:
    """What the demo model says when attach is called directly, picture by picture."""
    processor = AutoProcessor.from_pretrained(demo.model_path())
    model = AutoModelForImageTextToText.from_pretrained(demo.model_path()).eval()
    if options:
        attach(model, tokenizer=processor, **options)
    answers = []
    for line in (task / "questions.jsonl").read_text().splitlines():
        record = json.loads(line)
        inputs = processor(
            images=Image.open(record["image"]),
            text=prompt(processor, record["question"]),
            return_tensors="pt",
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
        said = output[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.decode(said, skip_special_tokens=True).strip())
    return answers


def read_run(folder: Path) -> tuple[dict, list[str]]:
    """The result file's content, and the answers in the order of the questions."""
    (path,) = folder.rglob("*_results.json")
    (samples,) = folder.rglob("*_samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines.sort(key=lambda line: line["doc_id"])
    return json.loads(path.read_text()), [line["filtered_resps"].strip() for line in lines]


@pytest.mark.slow
def test_demo_model_through_lmms_eval(task, installed, lmms_eval_python, tmp_path):
    unanswerable(task)
    model = f"pretrained={demo.model_path()},device=cpu,device_map=cpu,dtype=float32"
    runs = {
        "full": ("mipruner_scenes", model),
        "pruned": ("mipruner_scenes", f"{model},keep=26,redundancy=1"),
        "refused": ("mipruner_scenes", f"{model},keep=26,redundancey=1"),
        "failed": ("mipruner_unanswerable", f"{model},keep=26"),  # ends the process: the last
    }
    config = tmp_path / "runs.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            [
                {
                    "model": "mipruner_llava_hf",
                    "model_args": arguments,
                    "tasks": name,
                    "include_path": str(task),
                    "output_path": str(tmp_path / run),
                    "log_samples": True,
                }
                for run, (name, arguments) in runs.items()
            ]
        )
    )
    path = [installed, HERE.parent, HERE / "processors"]
    done = subprocess.run(
        [
            lmms_eval_python, "-c", CHILD,
            str(PLUGIN / "tasks" / "textvqa_val_ocr.yaml"), str(config),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    expected = "What is written ?\\nReference OCR token: stop, now\\nAnswer the question"
    assert f"PROMPT '{expected}" in said, said[-5000:]

    full, answers = read_run(tmp_path / "full")
    assert answers == answers_by_attach(task)
    assert "avg_visual_tokens_after" not in full["throughput"]
    pruned, fewer = read_run(tmp_path / "pruned")
    assert fewer == answers_by_attach(task, keep=26, redundancy=1.0)
    assert fewer != answers  # else these questions could not tell the runs apart
    assert pruned["throughput"]["avg_visual_tokens_before"] == 256
    assert pruned["throughput"]["avg_visual_tokens_after"] == 26

    assert "TypeError: model_args: got redundancey" in said
    assert not (tmp_path / "refused").exists()
    assert "GenerationFailed: ValueError: the question is empty" in said
    assert done.returncode != 0
    assert not list((tmp_path / "failed").rglob("*_results.json"))

    rows = table.read_results([tmp_path / "full", tmp_path / "pruned"])
    assert [row["keep"] for row in rows] == [1.0, 26]
    assert rows[0]["scores"] == {"scenes": pytest.approx(100 * full_match(task, answers))}
    assert rows[1]["scores"] == {"scenes": pytest.approx(100 * full_match(task, fewer))}


def full_match(task: Path, answers: list[str]) -> float:
    lines = (task / "questions.jsonl").read_text().splitlines()
    expected = [json.loads(line)["answer"] for line in lines]
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)
