"""Times our selection beside every published rule of bench/quality/rules, on the same inputs.

    python bench/bench_methods.py --json methods.json --markdown methods.md

Shapes, inputs and dtypes are those of bench_select.py: N / K of 576 / 64, 2880 / 320 and
8192 / 1024 with its D and M. Ours is mi_pruner_cuda.select as users call it, its checks included.
The rules choose in float32 on the device of the inputs, their arguments unchecked; half-precision
inputs are converted for them beforehand, which does not count, as some never look at the rows.
Attention maps and keys are random and given to them for nothing: what it takes to get them out of a
model is not counted.

Methods are called in turn, round after round, so that a change in the machine's speed meets all of
them. A method leaves the rounds when it has used its seconds, after three calls at least; one whose
first call takes longer than the limit is stopped there and reported so. Times are medians, up to
the moment when the device has finished; the ratio is a method's time over that of ours in the same
rounds. Memory is what the first call adds to the process (or to the device) at its peak.
"""

import argparse
import ctypes
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_select import DTYPES, SHAPES, machine, make_input

from mi_pruner_cuda import select

sys.path.insert(0, str(Path(__file__).resolve().parent / "quality"))
from rules import RULES, Sight

RELEVANCE = {"redundancy": 0.0, "coverage": 0.0}
OURS = {
    "ours": {},
    "ours, relevance alone": RELEVANCE,
    "ours, relevance alone, posterior": {**RELEVANCE, "estimator": "posterior"},
    "ours, relevance alone, joint": {**RELEVANCE, "estimator": "joint"},
    "ours, relevance alone, cosine": {**RELEVANCE, "estimator": "cosine"},
    "ours, coverage alone": {**RELEVANCE, "coverage": 1.0},
}
KEY_COLUMNS = 64  # of a key: one head's
LEAST_CALLS = 3


@dataclass(frozen=True)
class Method:
    name: str
    needs: str  # the maps that it gets for nothing
    call: Callable[[], object]


class TooLong(Exception):
    pass


@contextmanager
def limit(seconds):
    """Raises TooLong in the block when the time is up, between two operations of torch."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_sight(visual, text):
    """The rows and random maps, which sum to 1 as attention does."""
    generator = torch.Generator().manual_seed(1)
    n = len(visual)
    attention, of_text = torch.randn(2, n, generator=generator).softmax(1).to(visual.device)
    keys = torch.randn(n, KEY_COLUMNS, generator=generator).to(visual.device)
    return Sight(visual, text, attention, keys, of_text)


def methods(sight, k):
    """Ours first, then every rule."""

    def ours(options):
        return lambda: select(sight.visual, sight.text, k, **options).indices

    def theirs(rule):
        return lambda: rule.pick(converted, k, None).sort().values

    converted = sight.to(torch.float32, None)
    own = [Method(name, "", ours(options)) for name, options in OURS.items()]
    return own + [Method(r.name, ", ".join(sorted(r.needs)), theirs(r)) for r in RULES.values()]


def finish(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call, device):
    """Seconds of one call, until the device has finished."""
    finish(device)
    start = time.perf_counter()
    call()
    finish(device)
    return time.perf_counter() - start


def first_call(call, device, most):
    """(seconds, bytes at the peak) of the first call; seconds None if it was stopped.

    On the CPU bytes are VmHWM's growth, None where Linux does not let it begin anew.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = reset_peak()
    try:
        with limit(most):
            seconds = timed(call, device)
    except TooLong:
        seconds = None
    if device == "cuda":
        return seconds, torch.cuda.max_memory_allocated() - before
    return seconds, None if before is None else status_bytes("VmHWM") - before


def reset_peak():
    """Resident bytes, from which VmHWM counts from now on; None where it cannot be reset.

    Freed memory goes back first (glibc's malloc_trim), or it would be used again unseen.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return status_bytes("VmRSS")


def status_bytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def time_in_turn(running, device, repeats, seconds):
    """Seconds of each method's calls, round after round."""
    times = {method.name: [] for method in running}
    for done in range(repeats):
        for method in running:
            own = times[method.name]
            if done < LEAST_CALLS or sum(own) < seconds:
                own.append(timed(method.call, device))
    return times


def ratio_of_medians(pairs):
    """Of the first numbers to the second."""
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def measure(shape, dtype, device, threads, repeats, seconds, most):
    """One row for each method.

    Args:
        shape: (N, D, M, K).
        seconds: after which a method makes no more calls.
        most: seconds that the first call may take.
    """
    torch.set_num_threads(threads)
    n, d, m, k = shape
    visual, text = (rows.to(device) for rows in make_input(n, d, m, DTYPES[dtype]))
    everything = methods(make_sight(visual, text), k)
    first = {method.name: first_call(method.call, device, most) for method in everything}
    running = [method for method in everything if first[method.name][0] is not None]
    times = time_in_turn(running, device, repeats, seconds)
    rows = []
    for method in everything:
        own = times.get(method.name, [])
        both = list(zip(own, times.get("ours", []), strict=False))  # of the rounds with both
        rows.append({
            "n": n, "d": d, "m": m, "k": k, "dtype": dtype, "device": device, "threads": threads,
            "method": method.name, "given": method.needs, "calls": len(own), "limit_s": most,
            "ms": statistics.median(own) * 1e3 if own else None,
            "ratio": ratio_of_medians(both) if both else None,
            "peak_bytes": first[method.name][1],
        })  # fmt: skip
    return rows


def format_table(rows):
    """rows: of one shape and dtype."""
    r = rows[0]
    lines = [
        f"N / D / M / K = {r['n']} / {r['d']} / {r['m']} / {r['k']}, {r['dtype']}:",
        "",
        "| method | given for nothing | ms | ratio to ours | calls | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        peak = "-" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 2**20:.0f}"
        ms = f"more than {r['limit_s']:g} s" if r["ms"] is None else f"{r['ms']:.3f}"
        ratio = "-" if r["ratio"] is None else f"{r['ratio']:.3g}x"
        line = [r["method"], r["given"] or "-", ms, ratio, str(r["calls"]), peak]
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def describe(about, device, threads):
    """What the times are of."""
    place = f"{threads} threads of {about['cores']} of {about['processor']}"
    if device == "cuda":
        place = f"{torch.cuda.get_device_name()}, host {about['processor']}"
    return (
        f"{place}, torch {about['torch']}. The rules choose in float32; what the second column "
        "names is random and given to them for nothing: its cost is not counted.\n"
    )


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument(
        "--repeats", type=int, default=15, help="rounds over all methods (at least 15)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each method and shape")
    parser.add_argument("--limit", type=float, default=60, help="seconds of a first call")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--markdown", type=Path, help="also write the tables there")
    args = parser.parse_args(arguments)
    if args.repeats < 15:
        parser.error(f"--repeats: got {args.repeats}, allowed is at least 15")
    if args.threads < 1:
        parser.error(f"--threads: got {args.threads}, allowed is at least 1")
    for name in ("seconds", "limit"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name}: got {getattr(args, name):g}, allowed is more than 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, allowed is cpu: torch sees no CUDA device")
    return args


@torch.no_grad()
def main(arguments=None):
    args = parse(arguments)
    from tqdm import tqdm  # here alone, as in bench_select.py

    about = machine()
    text = describe(about, args.device, args.threads)
    everything = []
    for dtype, shape in tqdm([(d, s) for d in args.dtypes for s in SHAPES], unit="case"):
        rows = measure(
            shape, dtype, args.device, args.threads, args.repeats, args.seconds, args.limit
        )
        text += f"\n{format_table(rows)}\n"
        everything += rows
    if args.markdown:
        args.markdown.write_text(text)
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "rows": everything}, indent=1) + "\n")
    print(text, end="")


if __name__ == "__main__":
    main()
