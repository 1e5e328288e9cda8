"""Everything that needs a GPU, in one command: builds, tests and times the CUDA kernels.

    python bench/gpu_check.py --out DIR

Takes less than nine minutes, needs no network, and goes on past a part that fails; the exit code is
1 if any did. Writes DIR/gpu_check.json, DIR/gpu_check.md and the programs' output to
DIR/gpu_check.log. With `--device cpu` it is a dry run, which shows on any machine that the check
itself works: tiny shapes, kernels emulated or on the CPU, the installed package.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu.build import build
from gpu.conformance import conformance
from gpu.device_tests import device_tests
from gpu.environment import environment
from gpu.report import markdown
from gpu.sanitizer import sanitizer
from gpu.session import Failed, NotAvailable, Session
from gpu.timings import timings

DEVICES = ("cuda", "cpu")
TOTAL_SECONDS = 530
DRY_PATIENCE = 4  # times the budgets: a dry run is about working at all, on whatever machine


@dataclass(frozen=True)
class Part:
    name: str
    run: Callable
    seconds: int  # its budget
    needs: tuple[str, ...] = ()  # parts without which it would tell nothing


PARTS = [
    Part("environment", environment, 40),
    Part("build", build, 170, ("environment",)),
    Part("conformance", conformance, 50, ("environment",)),
    Part("tests", device_tests, 110, ("build",)),
    Part("sanitizer", sanitizer, 105, ("build",)),
    Part("timings", timings, 100, ("build",)),
]


def run_part(part, session, failed, end):
    """One part's entry in the report."""
    start = time.monotonic()
    patience = DRY_PATIENCE if session.dry else 1
    session.part_ends = min(end, start + part.seconds * patience)
    needed = [name for name in part.needs if name in failed]
    try:
        if needed:
            raise Failed(f"not run, because {', '.join(needed)} failed")
        outcome = part.run(session)
        state, summary, data = "passed", outcome.summary, outcome.data
    except NotAvailable as reason:
        state, summary, data = "not available", str(reason), {}
    except Failed as error:
        state, summary, data = "failed", str(error), error.data
    except Exception as error:  # a mistake of the check's own must not end it either
        session.log.write(traceback.format_exc())
        state, summary, data = "failed", f"{type(error).__name__}: {error}", {}
    seconds = round(time.monotonic() - start, 1)
    print(f"{part.name}: {state}, {seconds:.0f} s: {summary}", flush=True)
    return {
        "name": part.name,
        "state": state,
        "seconds": seconds,
        "summary": summary,
        "data": data,
    }


def check(device, out, commit=None):
    """Runs all parts and writes the report after each, so that a check cut short leaves one."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + TOTAL_SECONDS * (DRY_PATIENCE if device == "cpu" else 1)
    report = {"dry_run": device == "cpu", "environment": {}, "parts": []}
    with (
        tempfile.TemporaryDirectory(prefix="mipruner_") as scratch,
        (out / "gpu_check.log").open("w") as log,
    ):
        session = Session(device, Path(scratch), log, commit)
        failed = set()
        for part in PARTS:
            entry = run_part(part, session, failed, end)
            if entry["state"] == "failed":
                failed.add(part.name)
            if part.name == "environment":
                report["environment"] = entry["data"]
            report["parts"].append(entry)
            (out / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
            (out / "gpu_check.md").write_text(markdown(report))
    return report


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a dry run")
    parser.add_argument("--commit", help="what to call the tree, where it has no history")
    args = parser.parse_args(arguments)
    if args.device not in DEVICES:
        parser.error(f"--device: got {args.device!r}, allowed are {' and '.join(DEVICES)}")
    report = check(args.device, args.out, args.commit)
    print(markdown(report))
    return 1 if any(part["state"] == "failed" for part in report["parts"]) else 0


if __name__ == "__main__":
    sys.exit(main())
