"""Part `sanitizer`: compute-sanitizer's memcheck and racecheck, one small case of every kernel."""

import re
import sys

from gpu.session import Failed, NotAvailable, Outcome, find_cuda_tool

TOOLS = ("memcheck", "racecheck")
SECONDS = 50  # for each tool
ERROR_CODE = 87


def sanitizer(session):
    program = find_cuda_tool("compute-sanitizer")
    if session.dry:
        done = session.python("-m", "gpu.sanitizer", session.device)
        if done.code != 0:
            raise Failed(f"the cases themselves: {done.last_line()}")
        raise NotAvailable("dry run: the cases ran, without a GPU to check")
    if program is None:
        raise NotAvailable("compute-sanitizer was not found")
    summaries = {}
    for tool in TOOLS:
        command = (program, "--tool", tool, "--error-exitcode", str(ERROR_CODE))
        done = session.python(
            "-m", "gpu.sanitizer", session.device, prefix=command, seconds=SECONDS,
            # Torch's cache of memory would hide where an array ends.
            PYTORCH_NO_CUDA_MEMORY_CACHING=1,
        )  # fmt: skip
        summaries[tool] = verdict(tool, done)
    wrong = {tool: text for tool, (right, text) in summaries.items() if not right}
    if wrong:
        raise Failed("; ".join(f"{tool}: {text}" for tool, text in wrong.items()), summaries)
    return Outcome("; ".join(f"{tool}: {text}" for tool, (_, text) in summaries.items()), summaries)


def verdict(tool, done):
    """(whether the tool ran to its end and found nothing, its own words)."""
    if "Device not supported" in done.output:
        raise NotAvailable("compute-sanitizer: Device not supported")
    lines = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", done.output)
    if done.code is None:
        return False, "stopped at its time limit"
    if done.code not in (0, ERROR_CODE) or not lines:
        return False, f"exit code {done.code}: {done.last_line()}"
    return done.code == 0 and bool(re.search(r": 0 (errors|hazards)", lines[-1])), lines[-1]


def small_cases(device):
    """Every operator, element type and estimator once. Rows are made in host memory, so that hardly
    any kernel of torch's runs."""
    import torch

    from mi_pruner_cuda import ops

    torch.manual_seed(0)
    kept = torch.tensor([0, 5, -1]).to(device)
    offsets, ranges = torch.tensor([0, 20, 20, 70]), torch.tensor([[0, 9], [0, 1], [2, 70]])
    offsets, ranges = offsets.to(device), ranges.to(device)
    scores = torch.randn(2, 70_000).to(device)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for width in (24, 37):  # with and without rows that start at multiples of 16 bytes
            visual = torch.randn(2, 70, width).to(dtype).to(device)
            text = torch.randn(2, 70, width).to(dtype).to(device)
            mask = (torch.rand(2, 70) < 0.8).to(device)
            ops.normalize(visual)
            ops.gather_rows(visual[0], kept)
            for estimator in ("specific", "posterior", "joint", "cosine"):
                ops.mutual_information(visual, text, mask, mask, estimator=estimator)
            for options in ({"coverage": 0.5}, {"redundancy": 0.5, "coverage": 0.5}):
                ops.select(visual, text, 9, mask, **options)
                ops.select_varlen(visual[0], text[0], offsets, ranges, [5, 2, 9], **options)
    ops.select(visual, text[:, :0], 9, redundancy=0.5)
    ops.top_k(scores[:, :1000], 100)
    ops.top_k(scores, 1000)  # more than shared memory holds
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    small_cases(sys.argv[1])
