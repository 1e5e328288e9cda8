"""The accuracy study: its exams, its fast reader, its intervals, and a small run of everything."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

BENCH = Path(__file__).resolve().parents[1] / "bench" / "quality"
sys.path.insert(0, str(BENCH))
from bootstrap import interval  # noqa: E402
from eval_vlm import answer_all  # noqa: E402
from exam import draw_exam  # noqa: E402
from methods import Ours, Published  # noqa: E402
from reader import Reader  # noqa: E402
from study_parts import PARTS, Run  # noqa: E402
from study_store import Entry, Store  # noqa: E402
from study_tables import Measured, describe_all, lead  # noqa: E402

from mi_pruner_cuda import attach, demo  # noqa: E402
from mi_pruner_cuda.demo import scenes  # noqa: E402

MODELS = {path.parent.name: path.parent for path in sorted((BENCH / "models").rglob("config.json"))}
MODELS["demo"] = demo.model_path()


# ---- exams ----


@pytest.mark.parametrize("world", ["demo", "study"])
def test_an_exam_asks_each_family_equally_often(world):
    exam = draw_exam(world, "study", 3, 4)
    names, counts = np.unique(exam.families(), return_counts=True)
    assert set(counts) == {4} and len(names) == {"demo": 5, "study": 11}[world]
    assert (np.diff(exam.scene_of) >= 0).all() and exam.scene_of[-1] == len(exam.scenes) - 1
    again = draw_exam(world, "study", 3, 4)
    assert [q.text for q in exam.questions] == [q.text for q in again.questions]
    for question, scene, asked in zip(exam.questions, exam.scene_of, exam.asked, strict=True):
        owners = scenes.patch_owners(exam.scenes[scene])
        assert np.array_equal(asked, np.isin(owners, question.objects))


def test_scans_kept_aside_are_in_no_other_split():
    def scans(split):
        found = scenes._load_scans(split)
        return {(digit, scan.tobytes()) for digit, own in enumerate(found) for scan in own}

    train, test, study, final = map(scans, scenes.SPLITS)
    assert study | final == test and not study & final and not test & train
    assert abs(len(study) - len(final)) <= 1


def test_recall_is_the_share_of_asked_patches():
    exam = draw_exam("study", "study", 3, 2)
    every = np.tile(np.arange(256), (len(exam), 1))
    recall = exam.recall(every)
    assert np.array_equal(np.isnan(recall), ~exam.asked.any(1))
    assert (recall[exam.asked.any(1)] == 1).all() and exam.asked.any()
    half = exam.recall(every[:, :128])
    expected = exam.asked[:, :128].sum(1) / np.maximum(exam.asked.sum(1), 1)
    assert np.allclose(half[~np.isnan(half)], expected[exam.asked.any(1)])


# ---- the reader ----


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("name", MODELS)
def test_the_reader_is_attach_and_generate(name, positions):
    exam = draw_exam("demo" if name == "demo" else "study", "study", 5, 4)
    reader = Reader(MODELS[name], exam, quiet=True)
    pairs = [(exam.scenes[s], q) for s, q in zip(exam.scene_of, exam.questions, strict=True)]
    options = {"keep": 20, "redundancy": 0.0, "positions": positions}
    with attach(reader.model, tokenizer=reader.processor, **options) as pruner:
        answers, kept = [], []
        for question, pair in enumerate(pairs):
            answers += answer_all(reader.model, reader.processor, [pair], quiet=True)
            kept.append(pruner.report[0].indices.numpy())
            seen = reader.model.get_input_embeddings().weight[pruner.report[0].query]
            assert torch.equal(reader.text(question), seen)
    right = np.array([said == q.answer for said, q in zip(answers, exam.questions, strict=True)])
    assert 0 < right.sum() < len(right), "questions that are all right or all wrong say little"
    assert np.array_equal(reader.answer(np.stack(kept), positions), right)


@pytest.mark.parametrize("name", MODELS)
def test_all_text_is_what_attach_takes_for_it(name):
    exam = draw_exam("demo" if name == "demo" else "study", "study", 5, 1)
    reader = Reader(MODELS[name], exam, quiet=True)
    scene = exam.scenes[exam.scene_of[0]]
    with attach(reader.model, keep=20, tokenizer=reader.processor, query="all") as pruner:
        answer_all(reader.model, reader.processor, [(scene, exam.questions[0])], quiet=True)
    seen = reader.model.get_input_embeddings().weight[pruner.report[0].query]
    assert torch.equal(reader.text(0, "all"), seen)


def test_the_reader_takes_changed_rows():
    exam = draw_exam("demo", "study", 5, 4)
    reader = Reader(MODELS["demo"], exam, quiet=True)
    kept = np.tile(np.arange(256), (len(exam), 1))
    same = reader.rows[exam.scene_of[:, None], kept]
    assert np.array_equal(reader.answer(kept, rows=same), reader.answer(kept))
    assert reader.answer(kept, rows=torch.zeros_like(same)).mean() < reader.answer(kept).mean()


# ---- intervals ----


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(2.0, 3.0, 900)
    low, high = interval(values, np.arange(900))
    half = 1.96 * values.std() / 30
    assert abs(low - (values.mean() - half)) < 0.03 and abs(high - (values.mean() + half)) < 0.03


def test_questions_about_one_scene_count_as_one():
    values = np.random.default_rng(0).normal(size=100)
    alone = interval(values, np.arange(100))
    together = interval(np.repeat(values, 9), np.repeat(np.arange(100), 9))
    assert np.allclose(alone, together)


def test_scenes_with_more_questions_weigh_more():
    values, scene = np.array([1.0] * 90 + [0.0] * 10), np.array([0] * 90 + list(range(1, 11)))
    low, high = interval(values, scene)
    assert low == 0.0 and high > 0.95


# ---- the store ----


ENTRY = Entry("rules", "model", "study", "study", 1, 2, "method", 0.25)


def test_the_store_reads_what_it_wrote(tmp_path):
    right, recall = np.array([True, False, True]), np.array([0.25, np.nan, 1.0])
    Store(tmp_path / "runs.jsonl").add(ENTRY, right, recall)
    store = Store(tmp_path / "runs.jsonl")
    assert store.holds(ENTRY) and not store.holds(ENTRY.of(Run(Ours(), 0.1)))
    assert np.array_equal(store[ENTRY].right, right)
    assert np.array_equal(store[ENTRY].recall, recall, equal_nan=True)


def test_a_line_that_a_kill_cut_off_is_written_anew(tmp_path):
    path = tmp_path / "runs.jsonl"
    store, hits = Store(path), np.array([True])
    other = ENTRY.of(Run(Ours(), 0.1))
    store.add(ENTRY, hits, np.array([1.0]))
    store.add(other, hits, np.array([1.0]))
    path.write_bytes(path.read_bytes()[:-5])
    store = Store(path)
    assert store.holds(ENTRY) and not store.holds(other)
    store.add(other, ~hits, np.array([0.5]))
    assert len(path.read_text().splitlines()) == 2
    assert not Store(path)[other].right[0] and Store(path)[ENTRY].right[0]


# ---- all of it ----


def run(script, *arguments):
    command = [sys.executable, BENCH / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_small_study(tmp_path):
    store = tmp_path / "demo.jsonl"
    ask = ("--models", MODELS["demo"], "--world", "demo", "--per-family", 1, "--output", tmp_path)
    ask += ("--parts", "rules", "--threads", 1)
    done = run("study.py", *ask)
    assert done.returncode == 0, done.stderr
    lines = store.read_text().splitlines()
    assert len(lines) == len(PARTS["rules"].runs)
    # Continues: what is there is not measured again, what is missing is.
    store.write_text("\n".join(lines[:-1]) + "\n")
    again = run("study.py", *ask)
    assert again.returncode == 0, again.stderr
    assert list(map(json.loads, store.read_text().splitlines())) == list(map(json.loads, lines))

    tables = run("study_tables.py", "--results", tmp_path)
    assert tables.returncode == 0, tables.stderr
    for name in ("random", "DivPrune", Ours().name, "5 questions (1 of each family)"):
        assert name in tables.stdout
    plots = run("study_plots.py", "--results", tmp_path, "--output", tmp_path)
    assert plots.returncode == 0, plots.stderr
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "study_accuracy_demo.png",
        "study_recall_demo.png",
    }


def test_a_scene_under_each_method(tmp_path):
    model = MODELS["study-qwen-3"]
    (tmp_path / "none.jsonl").write_text("")
    folders = ("--results", tmp_path, "--output", tmp_path)
    drawn = run("study_plots.py", *folders, "--scene", 0, "--models", model)
    assert drawn.returncode == 0, drawn.stderr
    assert Image.open(tmp_path / "study_scene_study-qwen-3.png").size[0] > 800


OTHER = Run(Published("random"), 0.1)


@pytest.fixture
def measured(tmp_path):
    """A model and how many questions random answers right -> what was measured of it. Ours answers
    every second one."""
    exam = draw_exam("study", "study", 3, 2)

    def measure(model, rights_of_other):
        store = Store(tmp_path / f"{model}.jsonl")
        head = Entry("rules", model, "study", "study", 3, 2)
        places, recall = np.arange(len(exam)), np.full(len(exam), 0.25)
        store.add(head.of(Run(Ours(), 0.1)), places % 2 == 0, recall)
        store.add(head.of(OTHER), places < rights_of_other, recall)
        return Measured(store, head, exam)

    return measure


def test_leads_are_ours_minus_the_others(measured):
    mean, low, high = lead([measured("a", 0)], OTHER, "all")
    assert mean == pytest.approx(50) and 0 < low <= mean <= high


def test_leads_over_models_are_those_of_all_their_questions(measured):
    a, b = measured("a", 0), measured("b", 22)
    assert len(a.exam) == 22
    mean, low, high = lead([a, b], OTHER, "all")
    assert mean == pytest.approx((50 - 50) / 2) and low < 0 < high
    one, two = lead([a], OTHER, "all"), lead([a, a], OTHER, "all")
    assert two[0] == one[0] and two[2] - two[1] < one[2] - one[1]
    table = describe_all([a, b])
    assert "rules, mean of a, b" in table
    assert any(line.startswith("| random | 25.0 | 50.0 (+0.0:") for line in table.splitlines())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--models", "nowhere"), "nowhere"),
        (("--per-family", "0", "--models", str(demo.model_path())), "per-family"),
        (("--parts", "nothing"), "nothing"),
    ],
)
def test_study_names_a_bad_argument(given, word):
    failed = run("study.py", *given)
    assert failed.returncode == 2 and word in failed.stderr
