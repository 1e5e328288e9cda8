"""Part `timings`: select at the sizes that have targets, beside PyTorch and a plain copy.

Every time is per call. Calls go round over inputs that together exceed the device's L2 cache, so
that each call finds its rows in memory. `ours` and `eager graph` are CUDA graphs of several calls,
replayed back to back; `ours, called` and `eager` are calls from Python. Eager PyTorch computes in
float32, as the method needs (see bench/bench_select.py); `reference` is mi_pruner_cuda.reference,
which is written to be read and waits for the device several times.
"""

import json
import statistics
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from itertools import cycle, islice, pairwise

from gpu.session import Failed, Outcome

ROTATED_BYTES = 256 << 20  # of inputs, several times the largest L2 cache
SAMPLES = 101
OUR_SECONDS = 8.0  # for our graph of each row, so that a slow kernel leaves time for the others
BASELINE_SECONDS = 2.0  # for everything else of each row
REDUNDANCY = 0.5  # of the greedy rows


@dataclass(frozen=True)
class Row:
    n: int
    d: int
    m: int
    k: int
    redundancy: float
    target_us: float

    @property
    def name(self):
        kind = "greedy " if self.redundancy else ""
        return f"{kind}{self.n} / {self.d} / {self.m} / {self.k}"

    @property
    def bytes(self):
        """What any implementation must move: bfloat16 rows in, scores and indices out."""
        return 2 * (self.n + self.m) * self.d + 4 * self.n + 8 * self.k


ROWS = (
    Row(576, 4096, 64, 64, 0.0, 15),
    Row(2880, 4096, 64, 320, 0.0, 25),
    Row(8192, 3584, 128, 1024, 0.0, 45),
    Row(50_000, 3584, 128, 5000, 0.0, 125),
    Row(2880, 4096, 64, 320, REDUNDANCY, 1000),
    Row(8192, 3584, 128, 1024, REDUNDANCY, 4000),
)
# The dry run shows that the code runs; its times mean nothing.
DRY_ROWS = tuple(
    Row(24 * (i + 1), 32, 4, 6, row.redundancy, row.target_us) for i, row in enumerate(ROWS)
)


def timings(session):
    done = session.python("-m", "gpu.timings", session.device)
    # A row is printed when our own time is known, and again when it is complete.
    objects = done.objects()
    rows = {entry["name"]: entry for entry in objects if "name" in entry}
    data = {"rows": list(rows.values()), "copy_gb_s": None}
    for entry in objects:
        data["copy_gb_s"] = entry.get("copy_gb_s", data["copy_gb_s"])
    names = [row.name for row in (DRY_ROWS if session.dry else ROWS)]
    missing = [name for name in names if "ours_us" not in rows.get(name, {})]
    if missing:
        raise Failed(f"not timed: {', '.join(missing)} ({done.last_line()})", data)
    broken = [name for name in names if rows[name].get("error")]
    if broken:
        raise Failed(f"{rows[broken[0]]['error']} (in {', '.join(broken)})", data)
    if done.code is None:
        raise Failed("stopped at its time limit; some baselines are missing", data)
    wrong = [name for name in names if rows[name]["score_error"] > rows[name]["score_limit"]]
    if wrong:
        raise Failed(f"scores are off: {', '.join(wrong)}", data)
    met = sum(row["ours_us"] <= row["target_us"] for row in data["rows"])
    summary = f"{len(names)} rows, {met} within the target"
    return Outcome("dry run, no GPU figure" if session.dry else summary, data)


# ---- in a process of its own ----


class Clock:
    """Seconds between two points of the device's work, or of ours in the dry run."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def mark(self):
        import torch

        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def spans(self, marks):
        pairs = list(pairwise(marks))
        if not self.cuda:
            return [b - a for a, b in pairs]
        marks[-1].synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in pairs]


def median_time(clock, work, samples, seconds=None):
    """(median seconds of `work`, how many samples), one warm-up aside; at most about `seconds`."""
    work()
    if seconds:
        before = clock.mark()
        work()
        once = clock.spans([before, clock.mark()])[0]
        samples = max(3, min(samples, int(seconds / max(once, 1e-9))))
    marks = [clock.mark()]
    for _ in range(samples):
        work()
        marks.append(clock.mark())
    return statistics.median(clock.spans(marks)), samples


def as_graph(calls):
    """A function that replays all calls; their results stay where they are."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        calls[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call() for call in calls]

    def replay():
        graph.replay()
        return results

    return replay


def raise_clocks(inputs):
    """Half a second of work: an idle device runs slower at first."""
    import torch

    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        torch.mm(inputs[0][0], inputs[0][0].mT[:, :256])
        torch.cuda.synchronize()


def make_inputs(row, device):
    """Sets of inputs, different ones, as many as it takes to exceed the cache."""
    import torch

    sets = 2 if device == "cpu" else max(2, -(-ROTATED_BYTES // (2 * (row.n + row.m) * row.d)))
    generator = torch.Generator(device).manual_seed(0)
    inputs = []
    for _ in range(sets):
        visual = torch.randn(row.n, row.d, generator=generator, device=device)
        text = torch.randn(row.m, row.d, generator=generator, device=device)
        related = torch.randperm(row.n, generator=generator, device=device)[: row.n // 8]
        words = torch.arange(len(related), device=device) % row.m
        visual[related] += 0.3 * text[words]
        inputs.append((visual.bfloat16(), text.bfloat16()))
    return inputs


def eager_functions(row):
    """Plain PyTorch as one writes it, or None where bench_select's own imports are missing."""
    try:
        import bench_select
    except ModuleNotFoundError:
        return None
    if row.redundancy:
        return lambda visual, text: bench_select.eager_greedy(visual, text, row.k, row.redundancy)
    return lambda visual, text: bench_select.eager_select(visual, text, row.k)


def measure(row, device):
    """Yields what is known of the row so far, the best part first."""
    import torch

    from mi_pruner_cuda import reference

    clock, on_gpu = Clock(device), device == "cuda"
    inputs = make_inputs(row, device)
    samples = SAMPLES if on_gpu else 3

    def ours(visual, text):
        return torch.ops.mipruner.select(visual, text, row.k, redundancy=row.redundancy)

    def rotating(function, rounds=1):
        """`rounds` calls and more: every set of inputs equally often."""
        count = len(inputs) * max(1, -(-rounds // len(inputs)))
        calls = [lambda pair=pair: function(*pair) for pair in islice(cycle(inputs), count)]
        return calls, lambda: [call() for call in calls]

    found = {"name": row.name, **asdict(row), "bytes": row.bytes, "input_sets": len(inputs)}

    calls, call_all = rotating(ours, rounds=10)
    graph = as_graph(calls) if on_gpu else call_all
    if on_gpu:
        raise_clocks(inputs)
    seconds, found["samples"] = median_time(clock, graph, samples, OUR_SECONDS)
    found["ours_us"] = seconds / len(calls) * 1e6
    yield found
    seconds, _ = median_time(clock, call_all, samples, BASELINE_SECONDS)
    found["ours_called_us"] = seconds / len(calls) * 1e6

    visual, text = inputs[0]
    indices, scores = ours(visual, text)
    exact_indices, exact = reference.select(
        visual.double(), text.double(), row.k, redundancy=row.redundancy
    )
    largest = exact.abs().max().item()
    found["score_error"] = (scores - exact).abs().max().item() / largest
    found["score_limit"] = 1e-5 + 10 * 2.0**-23 / largest  # and what float32 can resolve
    found["same_rows"] = int(torch.isin(indices, exact_indices).sum())
    del exact
    yield found

    eager = eager_functions(row)
    if eager:
        calls, call_all = rotating(eager)
        seconds, _ = median_time(clock, call_all, samples, BASELINE_SECONDS)
        found["eager_us"] = seconds / len(calls) * 1e6
        if on_gpu and not row.redundancy:  # the greedy one waits for the device at every step
            seconds, _ = median_time(clock, as_graph(calls), samples, BASELINE_SECONDS)
            found["eager_graph_us"] = seconds / len(calls) * 1e6

    def plain(visual, text):
        return reference.select(visual.float(), text.float(), row.k, redundancy=row.redundancy)

    seconds, _ = median_time(clock, lambda: plain(visual, text), samples, BASELINE_SECONDS)
    found["reference_us"] = seconds * 1e6
    yield found


def copy_rate(device):
    """Bytes read and written per second by a large copy, in GB/s."""
    import torch

    count = (512 << 20) if device == "cuda" else (1 << 20)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    clock = Clock(device)
    seconds, _ = median_time(clock, lambda: target.copy_(source), 20)
    return 2 * count / seconds / 1e9


def main(device):
    import torch

    print(json.dumps({"copy_gb_s": copy_rate(device)}), flush=True)
    failed = False
    for row in ROWS if device == "cuda" else DRY_ROWS:
        found = {"name": row.name, **asdict(row)}
        try:
            with torch.no_grad():
                for found in measure(row, device):
                    print(json.dumps(found), flush=True)
        except Exception as error:
            traceback.print_exc()
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(json.dumps({**found, "error": words}), flush=True)
            failed = True
        if device == "cuda":
            torch.cuda.empty_cache()
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1])
