"""The benchmarks measure what they say: their baselines are right, and they run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inputs import related

from mi_pruner_cuda import demo, reference

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path[:0] = [str(BENCH), str(BENCH / "quality")]
import accuracy  # noqa: E402
import bench_attach  # noqa: E402
import bench_select  # noqa: E402


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
def test_one_case(redundancy):
    threads = torch.get_num_threads()
    row = bench_select.measure((40, 16, 4, 10), "float32", 1, 2, redundancy)
    torch.set_num_threads(threads)
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
    pick = accuracy.methods(0)["uniform grid"]["selector"]
    chosen = pick(torch.zeros(256, 4), torch.zeros(1, 4), keep).indices
    assert len(chosen.unique()) == len(chosen) == accuracy.resolve(keep, 256)
    if len(chosen) >= 4:  # every quarter of the picture gets its share
        quarter = (chosen // 16 >= 8).int() * 2 + (chosen % 16 >= 8).int()
        counts = quarter.bincount(minlength=4)
        assert counts.min() >= len(chosen) // 4 - 4


def test_random_selection_is_seeded():
    def draw(seed):
        pick = accuracy.methods(seed)["random"]["selector"]
        return pick(torch.zeros(256, 4), torch.zeros(1, 4), 0.1).indices.tolist()

    assert draw(1) == draw(1) != draw(2)


def test_accuracy_runs(tmp_path):
    out, plot = tmp_path / "a.json", tmp_path / "a.png"
    command = ["--questions", "10", "--seeds", "2", "--json", out, "--plot", plot]
    done = subprocess.run(
        [sys.executable, BENCH / "quality/accuracy.py", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert len(rows) == 1 + 4 * 4 and plot.stat().st_size > 1000
    assert all(row["questions"] == 10 for row in rows)
    assert [row["tokens"] for row in rows if row["method"] == "random"] == [128, 64, 26, 13]
    assert demo.model_path().is_dir()


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
    "option, allowed",
    [
        ("--tokens=17", "square numbers"),
        ("--hidden=96", "multiples of 64"),
        ("--batch=0", "at least 1"),
    ],
)
def test_attach_refuses_sizes(option, allowed, capsys):
    with pytest.raises(SystemExit):
        bench_attach.parse([option])
    name, value = option.split("=")
    assert f"{name}: got {value}, allowed" in (said := capsys.readouterr().err) and allowed in said
