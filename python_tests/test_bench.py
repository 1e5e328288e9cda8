"""The benchmarks measure what they say: their baselines are right, and they run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inputs import related
from PIL import Image

from mi_pruner_cuda import reference, select
from mi_pruner_cuda.budget import resolve
from mi_pruner_cuda.critic.pairs import read_pairs

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path[:0] = [str(BENCH), str(BENCH / "quality")]
import baselines  # noqa: E402
import bench_attach  # noqa: E402
import bench_methods  # noqa: E402
import bench_select  # noqa: E402
import pairs  # noqa: E402
import rules  # noqa: E402
from vlm_batches import COURSES  # noqa: E402
from vlm_prompt import VOCABULARIES  # noqa: E402


@pytest.fixture
def threads():
    """The benchmarks set the number of threads: puts it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_eager_baseline_is_the_method():
    visual, text = related(90, 7, 32)
    indices, scores = bench_select.eager_select(visual, text, 20)
    expected, exact = reference.select(visual.double(), text.double(), 20)
    assert torch.equal(indices, expected)
    torch.testing.assert_close(scores.double(), exact, rtol=1e-4, atol=1e-6)


def test_the_eager_greedy_baseline_is_the_method():
    visual, text = related(90, 7, 32)
    indices, _ = bench_select.eager_greedy(visual, text, 20, 0.5)
    expected, _ = reference.select(visual.double(), text.double(), 20, redundancy=0.5)
    assert torch.equal(indices, expected)


@pytest.mark.parametrize("redundancy", [0.0, 0.5])
def test_one_case(redundancy, threads):
    row = bench_select.measure((40, 16, 4, 10), "float32", 1, 2, redundancy)
    assert row["same_rows"] == 10 and row["score_error"] < 1e-5
    assert row["ratio"] == pytest.approx(row["eager_ms"] / row["ours_ms"])
    assert 0 < row["workspace_mib"] < 17
    assert "40 / 16 / 4 / 10" in bench_select.format_table([row])


def test_fewer_than_15_repeats_are_refused():
    done = subprocess.run(
        [sys.executable, str(BENCH / "bench_select.py"), "--repeats", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "--repeats: got 3, allowed is at least 15" in done.stderr


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1, 0.05, 1, 256])
def test_uniform_grid_spreads(keep):
    pick = baselines.selector(baselines.RULES["uniform grid"])
    chosen = pick(torch.zeros(256, 4), torch.zeros(1, 4), keep).indices
    assert len(chosen.unique()) == len(chosen) == resolve(keep, 256)
    if len(chosen) >= 4:  # every quarter of the picture gets its share
        quarter = (chosen // 16 >= 8).int() * 2 + (chosen % 16 >= 8).int()
        counts = quarter.bincount(minlength=4)
        assert counts.min() >= len(chosen) // 4 - 4


def test_random_selection_is_seeded():
    def draw(seed):
        draws = torch.Generator().manual_seed(seed)
        pick = baselines.selector(baselines.RULES["random"], generator=draws)
        return pick(torch.zeros(256, 4), torch.zeros(1, 4), 0.1).indices.tolist()

    assert draw(1) == draw(1) != draw(2)


def test_attach_runs(tmp_path):
    out, table = tmp_path / "a.json", tmp_path / "a.md"
    sizes = ["--layers=2", "--hidden=64", "--tokens=16", "--threads=1", "--repeat=2", "--batch=2"]
    done = subprocess.run(
        [sys.executable, BENCH / "bench_attach.py", *sizes, "--output", table, "--json", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == table.read_text()
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 5 and len({line.count("|") for line in lines}) == 1
    rows = json.loads(out.read_text())["rows"]
    # A beginning mark, the image between two more, and 40 words.
    assert [row["columns"] for row in rows] == [43 + kept for kept in (16, 16, 8, 4, 16)]
    column = 2 * 2 * 2 * 64 * 4  # keys and values, items, layers, one head of 64, float32
    assert [row["cache_bytes"] / row["columns"] for row in rows] == [column] * 5
    unhooked, *hooked = rows
    assert unhooked["selection_ms"] == 0 and unhooked["language_ratio"] == 1
    for row in rows:
        assert 0 < row["language_ms"] < row["prefill_ms"] and row["decode_ms"] > 0
    for row in hooked:
        assert 0 < row["selection_ms"] < row["hooks_ms"]
    assert all(row["peak_bytes"] is None or row["peak_bytes"] >= 0 for row in rows)


@pytest.mark.parametrize(
    "bench, option, allowed",
    [
        (bench_attach, "--tokens=17", "are square numbers"),
        (bench_attach, "--hidden=96", "are multiples of 64"),
        (bench_attach, "--batch=0", "is at least 1"),
        (bench_methods, "--repeats=14", "is at least 15"),
        (bench_methods, "--threads=0", "is at least 1"),
        (bench_methods, "--limit=0", "is more than 0"),
        (bench_methods, "--seconds=-1", "is more than 0"),
    ],
)
def test_options_out_of_range_are_refused(bench, option, allowed, capsys):
    with pytest.raises(SystemExit):
        bench.parse([option])
    name, value = option.split("=")
    assert f"{name}: got {value}, allowed {allowed}" in capsys.readouterr().err


def test_the_timed_calls_are_the_methods():
    visual, text = bench_select.make_input(64, 16, 4, torch.bfloat16)
    sight = bench_methods.make_sight(visual, text)
    methods = {method.name: method for method in bench_methods.methods(sight, 9)}
    assert list(methods) == [*bench_methods.OURS, *rules.RULES]
    assert torch.equal(methods["ours"].call(), select(visual, text, 9).indices)
    joint = select(visual, text, 9, redundancy=0, coverage=0, estimator="joint").indices
    assert torch.equal(methods["ours, relevance alone, joint"].call(), joint)
    for name, rule in rules.RULES.items():
        assert methods[name].needs == ", ".join(sorted(rule.needs))
        found = methods[name].call()
        assert found.shape == (9,)
        if name != "random":
            # In float32 of the bfloat16 rows, which are wide enough apart for either precision.
            assert torch.equal(found, rule.choose(sight, 9))


def test_methods_are_called_in_turn():
    called = []
    running = [
        bench_methods.Method(name, "", lambda name=name: called.append(name)) for name in "abc"
    ]
    times = bench_methods.time_in_turn(running, "cpu", 15, 1e9)
    assert called == list("abc") * 15 and {len(own) for own in times.values()} == {15}
    called.clear()
    bench_methods.time_in_turn(running, "cpu", 15, 0.0)
    assert called == list("abc") * bench_methods.LEAST_CALLS


def test_a_rule_that_takes_too_long_is_reported(monkeypatch, threads):
    def endless(sight, k, generator):
        while True:
            sight.visual.sum()

    slow = rules.Rule("endless", "", frozenset({"keys"}), endless)
    monkeypatch.setattr(bench_methods, "RULES", {"endless": slow})
    *ours, row = bench_methods.measure((40, 16, 4, 10), "float32", "cpu", 1, 15, 0.0, 1)
    assert (row["ms"], row["ratio"], row["calls"]) == (None, None, 0)
    assert {r["calls"] for r in ours} == {3} and ours[0]["ratio"] == 1
    assert "| endless | keys | more than 1 s | - | 0 |" in bench_methods.format_table([row])


def test_the_ratio_is_of_the_rounds_that_both_were_in(monkeypatch, threads):
    times = {name: [3.0] * 3 + [9.0] * 12 for name in bench_methods.OURS} | {"ours": [1.0] * 3}
    monkeypatch.setattr(bench_methods, "RULES", {})
    monkeypatch.setattr(bench_methods, "time_in_turn", lambda *_: times)
    ours, *others = bench_methods.measure((40, 16, 4, 10), "float32", "cpu", 1, 15, 10.0, 60)
    assert ours["ratio"] == 1 and {(row["ratio"], row["ms"]) for row in others} == {(3, 9000)}


def test_the_peak_is_that_of_the_call():
    def hundred_mebibytes():
        torch.ones(100 << 20, dtype=torch.uint8)

    bench_methods.first_call(hundred_mebibytes, "cpu", 60)
    _, peak = bench_methods.first_call(hundred_mebibytes, "cpu", 60)
    assert peak is None or 99 << 20 < peak < 110 << 20


def test_methods_run(tmp_path, monkeypatch, capsys, threads):
    monkeypatch.setattr(bench_methods, "SHAPES", ((40, 16, 4, 10), (64, 8, 4, 1)))
    out, table = tmp_path / "a.json", tmp_path / "a.md"
    bench_methods.main(["--seconds=0.01", f"--json={out}", f"--markdown={table}"])
    assert capsys.readouterr().out == table.read_text()
    methods = [*bench_methods.OURS, *rules.RULES]
    lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (2 + len(methods)) and len({line.count("|") for line in lines}) == 1
    everything = json.loads(out.read_text())
    rows = everything["rows"]
    assert everything["machine"]["torch"] == torch.__version__ in table.read_text()
    assert [row["method"] for row in rows] == 2 * methods
    for row in rows:
        assert row["ms"] > 0 and 3 <= row["calls"] <= 15
        assert row["ratio"] == 1 if row["method"] == "ours" else row["ratio"] > 0


def test_methods_refuses_a_missing_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        bench_methods.parse(["--device=cuda"])
    assert "--device: got cuda, allowed is cpu" in capsys.readouterr().err


@pytest.mark.parametrize("world", COURSES)
def test_pairs_are_what_calibrate_reads(world, tmp_path):
    pairs.write(tmp_path, world, 3, seed=0)
    for kind in ("captions", "questions"):
        read = read_pairs(tmp_path / f"{kind}.jsonl")
        drawn = list(pairs.draw(world, 3, seed=0))
        for (picture, text), (scene, texts) in zip(read, drawn, strict=True):
            assert text == texts[kind] and set(text.split()) <= set(VOCABULARIES[world])
            assert Image.open(picture).tobytes() == scene.image.tobytes()
    named = [f"{item.colour} {item.digit}" for item in scene.objects]
    assert [name in texts["captions"] for name in named] == [True] * len(named)
