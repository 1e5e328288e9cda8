"""bench/gpu_check.py: the dry run from end to end, and what becomes of a part that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import gpu_check  # noqa: E402
from gpu import device_tests, sanitizer, timings  # noqa: E402
from gpu.report import markdown  # noqa: E402
from gpu.session import Failed, NotAvailable, Outcome, Result, Session  # noqa: E402
from gpu_check import Part  # noqa: E402

NAMES = ["environment", "build", "conformance", "tests", "sanitizer", "timings"]


def read(folder):
    report = json.loads((folder / "gpu_check.json").read_text())
    states = {part["name"]: part["state"] for part in report["parts"]}
    return report, states, (folder / "gpu_check.md").read_text()


@pytest.mark.slow
def test_the_dry_run_passes(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCH / "gpu_check.py", "--out", tmp_path, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report, states, page = read(tmp_path)
    assert states == {**dict.fromkeys(NAMES, "passed"), "sanitizer": "not available"}
    assert report["dry_run"] and {"device", "torch", "commit"} <= set(report["environment"])
    data = {part["name"]: part["data"] for part in report["parts"]}
    assert len(data["conformance"]["lines"]) >= 10
    assert all(result["error"] is None for result in data["tests"].values())
    assert [row["target_us"] for row in data["timings"]["rows"]] == [15, 25, 45, 125, 1000, 4000]
    assert all(row["same_rows"] == row["k"] for row in data["timings"]["rows"])
    assert "dry run, no GPU figure" in page and " us " not in page
    assert all(f"| {name} | " in page for name in NAMES)
    assert page in done.stdout and (tmp_path / "gpu_check.log").stat().st_size > 1000


# ---- parts that fail ----


def passing(session):
    return Outcome("well")


def failing(session):
    raise Failed("the device is on fire", {"degrees": 451})


def crashing(session):
    raise KeyError("a mistake of the check's own")


def missing(session):
    raise NotAvailable("no such tool")


def run(monkeypatch, folder, *parts):
    monkeypatch.setattr(gpu_check, "PARTS", list(parts))
    return gpu_check.main(["--out", str(folder), "--device", "cpu"])


def test_a_failing_part_is_named_and_the_others_still_run(monkeypatch, tmp_path, capsys):
    code = run(
        monkeypatch,
        tmp_path,
        Part("first", passing, 9),
        Part("second", failing, 9),
        Part("third", crashing, 9),
        Part("fourth", missing, 9),
        Part("fifth", passing, 9, needs=("second",)),
        Part("sixth", passing, 9, needs=("first",)),
    )
    report, states, page = read(tmp_path)
    assert code == 1
    failed = dict.fromkeys(["second", "third", "fifth"], "failed")
    assert states == {"first": "passed", **failed, "fourth": "not available", "sixth": "passed"}
    assert "Failed: second, third, fifth. Not available, so not checked: fourth." in page
    assert "| second | failed | 0 | the device is on fire |" in page
    assert "not run, because second failed" in page
    assert report["parts"][1]["data"] == {"degrees": 451}
    assert "second: failed" in capsys.readouterr().out
    assert "Traceback" in (tmp_path / "gpu_check.log").read_text()


def test_what_is_not_available_is_no_failure(monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, Part("only", missing, 9)) == 0
    assert "not checked: only" in read(tmp_path)[2]


def test_an_unknown_device_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(["--out", str(tmp_path), "--device", "tpu"])
    assert stopped.value.code == 2
    assert "--device: got 'tpu', allowed are cuda and cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_program_that_hangs_is_stopped(tmp_path):
    with (tmp_path / "log").open("w") as log:
        session = Session("cpu", tmp_path, log)
        script = "import time; print('begun', flush=True); time.sleep(60)"
        done = session.run(sys.executable, "-c", script, seconds=3)
    assert done.code is None and done.output == "begun\n"
    assert "stopped after 3 s" in (tmp_path / "log").read_text()


class Scripted:
    """A session whose programs give the results of a list."""

    device, dry = "cuda", False

    def __init__(self, *results):
        self.results = list(results)
        self.asked = []

    def python(self, *arguments, **options):
        self.asked.append(arguments[2:])
        return self.results.pop(0)


def test_tests_go_on_past_one_that_ends_its_process():
    session = Scripted(
        Result(0, '{"tests": ["a", "b", "c", "d"]}'),
        Result(-11, '{"test": "a", "error": null}\nillegal instruction'),
        Result(device_tests.SPOILED, '{"test": "c", "error": "CUDA error"}'),
        Result(0, '{"test": "d", "error": null}'),
    )
    with pytest.raises(Failed, match="2 of 4 failed: b, c") as caught:
        device_tests.device_tests(session)
    assert session.asked == [(), ("a", "b", "c", "d"), ("c", "d"), ("d",)]
    assert "illegal instruction" in caught.value.data["b"]["error"]
    assert caught.value.data["d"] == {"error": None}


def test_tests_that_did_not_finish_have_failed():
    session = Scripted(
        Result(0, '{"tests": ["a", "b"]}'), Result(None, '{"test": "a", "error": null}\n{"te')
    )
    with pytest.raises(Failed, match=r"1 of 2 failed: b \(not finished in the time allowed\)"):
        device_tests.device_tests(session)


@pytest.mark.parametrize(
    ("code", "output", "right"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", True),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", True),
        (sanitizer.ERROR_CODE, "========= ERROR SUMMARY: 3 errors", False),
        (0, "========= RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)", False),
        (0, "nothing of the tool's", False),
        (1, "Traceback\nImportError: no module", False),
        (None, "========= COMPUTE-SANITIZER", False),
    ],
)
def test_the_sanitizer_must_have_said_that_nothing_was_found(code, output, right):
    assert sanitizer.verdict("memcheck", Result(code, output))[0] is right


def test_a_device_that_the_sanitizer_does_not_know_is_no_pass():
    with pytest.raises(NotAvailable, match="Device not supported"):
        sanitizer.verdict("memcheck", Result(1, "========= Error: Device not supported"))


# ---- timings ----


def timed_rows():
    """What the timing program prints, with round numbers."""
    found = []
    for row in timings.ROWS:
        found.append(
            {
                "name": row.name,
                "bytes": row.bytes,
                "redundancy": row.redundancy,
                "target_us": row.target_us,
                "k": row.k,
                "samples": 101,
                "ours_us": row.target_us * 0.5,
                "ours_called_us": row.target_us * 0.75,
                "eager_us": row.target_us * 5.0,
                "eager_graph_us": None if row.redundancy else row.target_us * 4.0,
                "reference_us": row.target_us * 6.0,
                "score_error": 1e-6,
                "score_limit": 1e-5,
                "same_rows": row.k,
            }
        )
    return found


def printed(rows):
    return "\n".join(map(json.dumps, [{"copy_gb_s": 4000.0}, *rows]))


def test_the_table_of_a_gpu():
    outcome = timings.timings(Scripted(Result(0, printed(timed_rows()))))
    assert outcome.summary == "6 rows, 6 within the target"
    part = {"name": "timings", "state": "passed", "seconds": 1.0, "summary": outcome.summary}
    page = markdown(
        {"dry_run": False, "environment": {}, "parts": [{**part, "data": outcome.data}]}
    )
    # (576 + 64) * 4096 bfloat16, 576 scores and 64 indices in 7.5 us: 700 GB/s of 4000.
    assert (
        "| 576 / 4096 / 64 / 64 | 7.5 | 15 | 11.2 | 60.0 | 75.0 | 8.0x | 90 | 699 | 17% |" in page
    )
    assert "| greedy 2880 / 4096 / 64 / 320 | 500.0 | 1000 | 750.0 | - | 5000.0 | 10.0x |" in page
    assert "copy moved 4000 GB/s" in page and "Fewer than" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(1), "not timed: 2880 / 4096 / 64 / 320"),
        (lambda rows: rows[4].update(error="out of memory"), "out of memory .*greedy 2880"),
        (lambda rows: rows[2].update(score_error=1e-3), "scores are off: 8192"),
    ],
)
def test_rows_that_went_wrong_are_named(change, message):
    rows = timed_rows()
    change(rows)
    with pytest.raises(Failed, match=message) as caught:
        timings.timings(Scripted(Result(0, printed(rows))))
    assert len(caught.value.data["rows"]) == len(rows)
