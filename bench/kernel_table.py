"""What each kernel of select has to do at the sizes that have targets: computed, not measured.

    python bench/kernel_table.py [--out DIR]

For every kernel launch: blocks, registers and shared memory, how many blocks an SM of sm_90 holds,
bytes, floating-point operations, and the least time that these leave. No GPU is needed: registers
come from nvcc, and everything else from the shapes and from the constants in csrc/cuda. Times are
floors: latency, barriers and bank conflicts come on top. bench/gpu_check.py measures.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpu.timings import ROWS

ROOT = Path(__file__).resolve().parents[1]
CUDA = ROOT / "csrc/cuda"
ARCHITECTURE = 90
ELEMENT, ELEMENT_BYTES = "BFloat16", 2

# The device: an H200 as the targets take it.
SMS = 132
MEMORY = 4.3e12  # bytes per second
L2 = 5.5e12  # bytes per second out of the cache, all SMs together
SM_BYTES = 112e9  # what one SM can take of it: 64 bytes per clock; counts where blocks are few
TENSOR = 780e12  # dense bfloat16 operations per second
FLOAT = 67e12  # float32 operations per second
LAUNCH_US = 2.0  # between two dependent kernels of a graph

SM_REGISTERS, SM_THREADS, SM_BLOCKS, SM_SHARED = 65536, 2048, 32, 228 * 1024
RESERVED_SHARED = 1024  # of every block


@dataclass(frozen=True)
class Launch:
    kernel: str
    blocks: int
    threads: int
    shared: int  # bytes, dynamic
    read: int = 0  # bytes of memory, each once
    written: int = 0
    cached: int = 0  # bytes that SMs take out of L2 beyond `read`
    tensor_flops: int = 0
    float_flops: int = 0


def constants(*files):
    """The integers that the sources name: the table follows their tuning."""
    values = {}
    for file in files:
        text = (CUDA / file).read_text()
        for name, expression in re.findall(r"constexpr int(?:64_t)? (k\w+) =\s*([^;]+);", text):
            if re.fullmatch(r"[\w\s*/+]+", expression):
                try:
                    values[name] = int(eval(expression.replace("/", "//"), {}, {**values}))
                except NameError:
                    continue  # in terms of another file's constant, which is not needed
    return values


def similarity_bytes():
    """How much memory select lets the similarities of rows take on a CUDA device."""
    text = (ROOT / "csrc/torch/ops.cpp").read_text()
    pattern = r"kSimilarityBytes = kDevice == Device::kCpu .*: int64_t\{(\d+)\} << (\d+);"
    factor, shift = re.search(pattern, text).groups()
    return int(factor) << int(shift)


def up(a, b):
    return -(-a // b)


def relevance(row):
    c = constants("common/device.h", "product.cuh", "mutual_information.cu")
    n, m, d = row.n, row.m, row.d
    row_tiles, word_tiles = up(n, c["kTileRows"]), up(m, c["kTileRows"])
    tiles = row_tiles * word_tiles
    splits = up(d, c["kDepthChunk"]) if tiles < c["kTilesThatFill"] else 1
    product_shared = 2 * c["kStages"] * c["kTileRows"] * c["kStageBytes"]
    row_threads = c["kWarpsPerBlock"] * 32
    row_blocks, column_blocks = up(n, c["kWarpsPerBlock"]), up(n, c["kColumnRows"])
    inputs = (n + m) * d * ELEMENT_BYTES
    table = n * m * 4
    return [
        Launch(
            f"product_kernel<{ELEMENT}>", tiles * splits, c["kProductThreads"], product_shared,
            read=inputs, written=splits * (table + (n + m) * 4),
            # Every tile takes 64 rows and 64 words; the first time they come from memory.
            cached=tiles * 2 * c["kTileRows"] * d * ELEMENT_BYTES - inputs,
            tensor_flops=2 * tiles * c["kTileRows"] ** 2 * d,
            float_flops=2 * tiles * 2 * c["kTileRows"] * d,  # sums of squares
        ),
        Launch(
            f"words_kernel<{ELEMENT}>", 1, c["kWordThreads"], c["kWordThreads"] // 32 * 4,
            read=splits * m * 4, written=m * (4 + 4 + 4 + 8 + 4),
        ),
        Launch(
            f"rows_kernel<{ELEMENT}>", row_blocks, row_threads, 0,
            read=splits * (table + n * 4), written=table + n * (1 + 4 + 4 + 4),
            float_flops=n * m * (splits + 20),  # scaling and a softmax
        ),
        Launch(
            "columns_kernel", column_blocks, c["kColumnThreads"], 0,
            read=table + n, written=m * 8, float_flops=3 * n * m,
        ),
        Launch(
            "scores_kernel", row_blocks, row_threads, 0,
            read=table + n + m * 8, written=n * 4, float_flops=30 * n * m,  # a logarithm each
        ),
    ]  # fmt: skip


def top_k(row):
    c = constants("top_k.cu")
    warps = c["kThreads"] // 32
    shared = 4 * c["kBins"] + warps * (4 + 8) + 8 + 4 * c["kStoredKeys"]
    passes = 1 if row.n <= c["kStoredKeys"] else 5  # three histograms, a count and the output
    keys = row.n * (4 + 1)
    return Launch(
        "top_k_kernel<SelectKeys>", 1, c["kThreads"], shared,
        read=keys, cached=(passes - 1) * keys, written=row.k * 8,
    )  # fmt: skip


def greedy(row):
    c = constants("common/device.h", "product.cuh", "similarity.cuh", "greedy.cu")
    n, d, k = row.n, row.d, row.k
    tiles = up(n, c["kTileRows"])
    splits = up(n, c["kChunkPositions"]) if tiles < c["kTilesThatFill"] else 1
    product_shared = 2 * c["kStages"] * c["kTileRows"] * c["kStageBytes"]
    list_shared = c["kListThreads"] // 32 * 4
    best_shared = 2 * c["kProductThreads"] // 32 * 8
    held = c["kHeldStored"] * c["kStepThreads"]
    inputs = n * d * ELEMENT_BYTES
    stored = n * n * 4 <= similarity_bytes()
    product = Launch("", tiles * splits, c["kProductThreads"], product_shared)
    return [
        Launch("list_kernel", 1, c["kListThreads"], list_shared, read=n * 5, written=n * 5),
        replace(
            product, kernel=f"similarities_kernel<{ELEMENT}>",
            read=inputs, written=stored * n * n * 4 + splits * n * 8,
            cached=tiles * tiles * 2 * c["kTileRows"] * d * ELEMENT_BYTES - inputs,
            tensor_flops=2 * (tiles * c["kTileRows"]) ** 2 * d,
            float_flops=n * n * 20 + 2 * tiles * tiles * 2 * c["kTileRows"] * d,
        ),
        Launch(
            "normalizers_kernel", up(n, c["kRowThreads"]), c["kRowThreads"], 0,
            read=splits * n * 8, written=n * 4,
        ),
        # Nothing to do where there is text.
        replace(product, kernel=f"representatives_kernel<{ELEMENT}>"),
        # One row of the table at every step, and what registers do not hold: relevance, place,
        # normaliser and sum of every other position.
        Launch(
            "stored_steps_kernel", 1, c["kStepThreads"], 2 * c["kStepThreads"] // 32 * 8,
            read=stored * (k - 1) * n * 4, cached=stored * k * max(0, n - held) * 20,
            written=stored * k, float_flops=stored * k * n * 25,
        ),
        # One of the two has nothing to do. This one multiplies a row, in a tile of its own, with
        # all others at every step.
        Launch(
            f"computed_steps_kernel<{ELEMENT}>", 1, c["kProductThreads"],
            up(product_shared + best_shared, 128) * 128,
            read=(not stored) * inputs,
            cached=(not stored) * (k - 2) * inputs + (not stored) * k * n * 20,
            written=(not stored) * k,
            tensor_flops=(not stored) * (k - 1) * 2 * tiles * c["kTileRows"] ** 2 * d,
        ),
        Launch(
            "output_kernel", 1, c["kListThreads"], list_shared, read=n * 2, written=k * 8
        ),
    ]  # fmt: skip


def launches(row):
    return [*relevance(row), *(greedy(row) if row.redundancy else [top_k(row)])]


def blocks_per_sm(launch, registers):
    # Registers are given to warps, 256 at a time, out of four files.
    warp = up(registers * 32, 256) * 256
    warps = SM_REGISTERS // 4 // warp * 4
    shared = up(launch.shared, 128) * 128 + RESERVED_SHARED
    by_threads = SM_THREADS // launch.threads
    return min(SM_BLOCKS, by_threads, warps // (launch.threads // 32), SM_SHARED // shared)


def least_us(launch):
    """The time that the slowest of memory, cache and arithmetic needs, with the SMs in use."""
    share = min(launch.blocks, SMS) / SMS
    moved = launch.read + launch.written
    seconds = max(
        moved / MEMORY,
        (moved + launch.cached) / min(L2, SM_BYTES * SMS * share),
        launch.tensor_flops / (TENSOR * share),
        launch.float_flops / (FLOAT * share),
    )
    return seconds * 1e6


def kernel_name(mangled):
    """The kernel's name and its template argument, such as product_kernel<BFloat16>."""
    name = re.search(r"\d+([a-z_]+_kernel)", mangled).group(1)
    argument = re.search(r"_kernelI(\w+?)EE*v", mangled)
    if not argument:
        return name
    types = {"f": "float", "h": "byte"}
    if argument.group(1) in types:
        return f"{name}<{types[argument.group(1)]}>"
    # Nested names are written as length and letters; the last one is the type's own.
    length, letters = re.findall(r"(\d+)([A-Za-z]\w*)", argument.group(1))[-1]
    return f"{name}<{letters[: int(length)]}>"


def compile_registers():
    """{kernel: registers}, as nvcc allots them."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("kernel_table: nvcc is not on the PATH")

    def compile_one(source):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [
                    nvcc, "-std=c++17", "-O3", "--fmad=false", f"-arch=sm_{ARCHITECTURE}",
                    "-I", ROOT / "csrc", "-Xptxas", "-v", "-cubin", source,
                    "-o", Path(folder) / "out.cubin",
                ],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        pattern = r"entry function '(\w+)'.*?Used (\d+) registers"
        found = re.findall(pattern, done.stderr, re.DOTALL)
        return {kernel_name(name): int(registers) for name, registers in found}

    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(compile_one, sorted(CUDA.glob("*.cu")))
    return {name: registers for part in parts for name, registers in part.items()}


def table(registers):
    rows = []
    for row in ROWS:
        kernels = []
        for launch in launches(row):
            used = registers[launch.kernel]
            kernels.append(
                asdict(launch)
                | {
                    "registers": used,
                    "blocks_per_sm": blocks_per_sm(launch, used),
                    "least_us": least_us(launch),
                }
            )
        least = sum(kernel["least_us"] for kernel in kernels)
        rows.append(
            {
                "name": row.name,
                **asdict(row),
                "launches": len(kernels),
                "read": sum(kernel["read"] for kernel in kernels),
                "written": sum(kernel["written"] for kernel in kernels),
                "least_us": least,
                "least_with_launches_us": least + LAUNCH_US * len(kernels),
                "kernels": kernels,
            }
        )
    return {
        "note": "computed, not measured",
        "architecture": f"sm_{ARCHITECTURE}",
        "element": ELEMENT,
        "assumed": {
            "memory_bytes_per_s": MEMORY, "l2_bytes_per_s": L2, "sms": SMS,
            "tensor_flops": TENSOR, "float_flops": FLOAT, "launch_us": LAUNCH_US,
        },
        "rows": rows,
    }  # fmt: skip


def megabytes(count):
    return f"{count / 1e6:.2f}"


def markdown(data):
    lines = [
        "# Kernels of select: computed, not measured",
        "",
        "No GPU has run for this table. `bench/kernel_table.py` computes bytes and operations from",
        "the shapes, in bfloat16, and takes registers from nvcc for sm_90. The least time of a",
        f"kernel is the largest of: bytes of memory at {MEMORY / 1e12} TB/s; bytes through the SMs",
        f"in use at {SM_BYTES / 1e9:.0f} GB/s each, {L2 / 1e12} TB/s for all; products at",
        f"{TENSOR / 1e12:.0f} TFLOP/s; other arithmetic at {FLOAT / 1e12:.0f} TFLOP/s. It is a",
        "floor: latency and barriers, above all those of the greedy steps, come on top. So does",
        "the gap between two kernels of a graph; the sixth column has it, at",
        f"{LAUNCH_US:.0f} us each.",
        "",
        "| N / D / M / K | launches | MB read | MB written | least us | and launches | target us |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        lines.append(
            f"| {row['name']} | {row['launches']} | {megabytes(row['read'])} | "
            f"{megabytes(row['written'])} | {row['least_us']:.1f} | "
            f"{row['least_with_launches_us']:.1f} | {row['target_us']:g} |"
        )
    for row in data["rows"]:
        lines += [
            "",
            f"## {row['name']}",
            "",
            "| kernel | blocks x threads | registers | shared bytes | blocks per SM | MB read | "
            "MB written | MB from L2 | GFLOP | least us |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for kernel in row["kernels"]:
            flops = kernel["tensor_flops"] + kernel["float_flops"]
            lines.append(
                f"| {kernel['kernel']} | {kernel['blocks']} x {kernel['threads']} | "
                f"{kernel['registers']} | {kernel['shared']} | {kernel['blocks_per_sm']} | "
                f"{megabytes(kernel['read'])} | {megabytes(kernel['written'])} | "
                f"{megabytes(kernel['cached'])} | {flops / 1e9:.2f} | {kernel['least_us']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(arguments)
    data = table(compile_registers())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "kernels_computed.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.out / "kernels_computed.md").write_text(markdown(data))
    print(markdown(data), end="")


if __name__ == "__main__":
    main()
