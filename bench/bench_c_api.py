"""What one call of mipruner_select costs on small inputs, from C, beside the same through torch.

    python bench/bench_c_api.py

Inputs of 16 x 64 are next to no work: what is left is checking, memory and choosing. Eager PyTorch
is the method in PyTorch operators, as in bench_select.py. Medians, one thread.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_select import eager_select, machine, make_input

import mi_pruner_cuda

SHAPES = ((16, 64, 4, 4), (64, 256, 8, 16), (256, 1024, 16, 64))  # rows, columns, words, kept
HERE = Path(__file__).resolve().parent


def compile_program(folder):
    """The C program, linked to this installation's library."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("bench_c_api: needs a C compiler on the PATH (cc, gcc or clang)")
    program, libraries = folder / "call_overhead", mi_pruner_cuda.get_library_dir()
    subprocess.run(
        [
            compiler, "-O2", "-D_POSIX_C_SOURCE=199309L", HERE / "call_overhead.c", "-o", program,
            f"-I{mi_pruner_cuda.get_include()}", f"-L{libraries}", "-lmipruner",
            f"-Wl,-rpath,{libraries}",
        ],
        check=True,
    )  # fmt: skip
    return program


def from_c(program, shape):
    command = [program, *map(str, shape)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def from_python(function, calls=500, batches=21):
    """Median microseconds per call."""
    times = []
    for _ in range(batches + 1):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return sorted(times[1:])[batches // 2]


def measure(program, shape):
    n, d, m, k = shape
    visual, text = make_input(n, d, m, torch.float32)
    op = torch.ops.mipruner.select
    return {
        "c": from_c(program, shape),
        "torch": from_python(lambda: op(visual, text, k)),
        "eager": from_python(lambda: eager_select(visual, text, k)),
    }


def main():
    torch.set_num_threads(1)
    print(machine()["processor"])
    print("| N / D / M / K | mipruner_select us | torch.ops.mipruner.select us | eager us |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program(Path(folder))
        for shape in SHAPES:
            row = measure(program, shape)
            name = " / ".join(map(str, shape))
            print(f"| {name} | {row['c']:.1f} | {row['torch']:.1f} | {row['eager']:.1f} |")


if __name__ == "__main__":
    main()
