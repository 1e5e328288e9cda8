"""Times torch.ops.mipruner.select against the same method in eager PyTorch, in one run.

    python bench/bench_select.py --json select.json

Eager PyTorch works in float32 whatever the input: float16 and bfloat16 are converted first, because
the method's scores do not survive half-precision arithmetic. Both sides are called in turn, so that
a change in the machine's speed meets both; medians are reported. The correctness columns compare
ours with the reference in float64: the largest difference of a score, relative to the largest
score, and how many of the K rows agree.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional

from mi_pruner_cuda import _C, reference
from mi_pruner_cuda.build_info import build_info

SHAPES = ((576, 4096, 64, 64), (2880, 4096, 64, 320), (8192, 3584, 128, 1024))  # N, D, M, K
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TEMPERATURE = 0.1


def eager_scores(visual, text):
    """Specific information as one writes it in PyTorch: (N, D), (M, D) -> (N)."""
    cosines = functional.normalize(visual, dim=-1) @ functional.normalize(text, dim=-1).T
    log_p = torch.log_softmax(cosines / TEMPERATURE, dim=1)
    p = log_p.exp()
    return (p * (log_p - p.mean(0).log())).sum(1)


def eager_select(visual, text, k):
    scores = eager_scores(visual.float(), text.float())
    return scores.topk(k).indices.sort().values, scores


def eager_greedy(visual, text, k, redundancy):
    """The same with redundancy: one table of all pairs, one gather and one argmax per kept row."""
    visual = visual.float()
    scores = eager_scores(visual, text.float())
    unit = functional.normalize(visual, dim=-1)
    log_p = torch.log_softmax((unit @ unit.T / TEMPERATURE).fill_diagonal_(-math.inf), dim=1)
    table = (log_p.exp() * (log_p + math.log(len(visual)))).clamp_min_(0).fill_diagonal_(0)
    gains = scores.clone()
    order = torch.empty(k, dtype=torch.int64)
    for step in range(k):
        best = gains.argmax()
        order[step] = best
        gains = gains - redundancy * table[:, best]
        gains[best] = -math.inf
    return order.sort().values, scores


def make_input(n, d, m, dtype, seed=0):
    """Random rows, an eighth of which resemble a word each: scores spread as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(n, d, generator=generator)
    text = torch.randn(m, d, generator=generator)
    related = torch.randperm(n, generator=generator)[: n // 8]
    visual[related] += 0.3 * text[torch.arange(len(related)) % m]
    return visual.to(dtype), text.to(dtype)


def time_pair(ours, eager, repeats):
    """Median seconds of each, called in turn after one warm-up."""
    seconds = ([], [])
    for repeat in range(repeats + 1):
        for function, times in zip((ours, eager), seconds, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                times.append(time.perf_counter() - start)
    return tuple(statistics.median(times) for times in seconds)


def measure(shape, dtype_name, threads, repeats, redundancy):
    n, d, m, k = shape
    visual, text = make_input(n, d, m, DTYPES[dtype_name])
    torch.set_num_threads(threads)

    def ours():
        return torch.ops.mipruner.select(visual, text, k, redundancy=redundancy)

    def eager():
        if redundancy:
            return eager_greedy(visual, text, k, redundancy)
        return eager_select(visual, text, k)

    our_seconds, eager_seconds = time_pair(ours, eager, repeats)
    # The scratch memory that the operator asks torch for.
    workspace = _C.select_workspace_bytes(n, m, d, redundancy, threads)
    indices, scores = ours()
    exact = reference.mutual_information(visual.double(), text.double())
    # The float64 greedy of 8192 rows would take minutes: there eager float32 is the yardstick.
    expected = eager()[0] if redundancy else reference.top_k(exact, k)[1]
    return {
        "n": n, "d": d, "m": m, "k": k, "dtype": dtype_name, "threads": threads,
        "redundancy": redundancy, "repeats": repeats,
        "ours_ms": our_seconds * 1e3, "eager_ms": eager_seconds * 1e3,
        "ratio": eager_seconds / our_seconds, "workspace_mib": workspace / 2**20,
        "score_error": ((scores - exact).abs().max() / exact.abs().max()).item(),
        "same_rows": len(set(indices.tolist()) & set(expected.tolist())),
    }  # fmt: skip


def format_table(rows):
    lines = [
        "| N / D / M / K | dtype | threads | redundancy | eager ms | ours ms | ratio "
        "| workspace MiB | score error | same rows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['n']} / {r['d']} / {r['m']} / {r['k']} | {r['dtype']} | {r['threads']} "
            f"| {r['redundancy']:g} | {r['eager_ms']:.2f} | {r['ours_ms']:.2f} | {r['ratio']:.1f}x "
            f"| {r['workspace_mib']:.1f} | {r['score_error']:.1e} | {r['same_rows']}/{r['k']} |"
        )
    return "\n".join(lines)


def machine():
    info = build_info()
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else "unknown",
        "cores": len(names),
        "torch": torch.__version__,
        **info,
    }


def main():
    from tqdm import tqdm  # here alone: others use this file's baselines where there is no tqdm

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument(
        "--repeats", type=int, default=15, help="timed calls of each side (at least 15)"
    )
    parser.add_argument("--redundancy", type=float, default=0.5, help="lambda of the greedy rows")
    parser.add_argument("--no-greedy", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    if args.repeats < 15:
        parser.error(f"--repeats: got {args.repeats}, allowed is at least 15")
    cases = [(s, d, t, 0.0) for t in args.threads for d in args.dtypes for s in SHAPES]
    if not args.no_greedy:
        cases += [(s, "float32", max(args.threads), args.redundancy) for s in SHAPES]
    rows = [
        measure(shape, dtype, threads, args.repeats, redundancy)
        for shape, dtype, threads, redundancy in tqdm(cases, unit="case")
    ]
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(json.dumps(machine(), indent=1))
    print(format_table(rows))


if __name__ == "__main__":
    main()
