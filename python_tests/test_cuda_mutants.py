"""Mutants of the CUDA kernels, each with one mistake, do not pass the emulated cases.

This shows that csrc/tests/cuda_cases and the emulator's checker would notice. The same program
without a mistake passes in test_cuda_kernels.py.
"""

import shutil
from dataclasses import dataclass

import pytest
from cuda_builder import (
    CSRC,
    CXX,
    EMULATED,
    MODES,
    ORDERS,
    builder,
    compile_object,
    run,
)

pytestmark = pytest.mark.compiles

# A file of csrc/cuda: the kernel compiled to judge its mutants, the cases run, and its mutants.
KERNELS = {
    "top_k.cu": ("top_k", "top_k"),
    "normalize.cu": ("normalize", "normalize"),
    "gather_rows.cu": ("gather_rows", "gather_rows"),
    "product.cuh": ("mutual_information", "mutual_information"),
    "rows.cuh": ("mutual_information", "mutual_information"),
    "compact.cuh": ("mutual_information", "mutual_information"),
    "mutual_information.cu": ("mutual_information", "select"),
    "select.cu": ("select", "select_varlen"),
    "similarity.cuh": ("greedy", "greedy"),
    "greedy.cu": ("greedy", "greedy"),
}


@dataclass
class Mutant:
    before: str
    after: str
    operation: str = ""  # whose cases are run, if not those of the file


MUTANTS = {
    "top_k.cu": {
        "histogram read before it is complete": Mutant(
            "__syncthreads();  // the histogram is complete", ""
        ),
        "keys counted before bins are cleared": Mutant(
            "histogram[bin] = 0;\n  }\n  __syncthreads();", "histogram[bin] = 0;\n  }"
        ),
        "totals read before they are written": Mutant(
            "shared.bin_totals[warp] = in_warp;\n  __syncthreads();",
            "shared.bin_totals[warp] = in_warp;",
        ),
        "one key too many in a part": Mutant(
            "i = begin + lane; i < end;", "i = begin + lane; i <= end;"
        ),
        "a tie dropped": Mutant("my_equal < threshold.equal)", "my_equal + 1 < threshold.equal)"),
        "a lane counts itself": Mutant("(1u << lane) - 1", "(2u << lane) - 1"),
        "overlapping digits": Mutant("pass == 0 ? 21", "pass == 0 ? 20"),
        "NaN kept as a value": Mutant("value == value ? value", "true ? value"),
        "broken rows never taken": Mutant(
            "row_state == kRowBroken ? 1 : 0", "row_state == kRowBroken ? 0 : 0", "select_top_k"
        ),
        "covered rows ranked by their scores": Mutant(
            "row_state == kRowCounts)", "row_state >= kRowCounts)", "select_top_k"
        ),
    },
    "normalize.cu": {
        "a row read past its end": Mutant(
            "row.aligned && at + kCount <= row.columns", "row.aligned"
        ),
        "a row written past its end": Mutant(
            "if (at + i < row.columns) out[at + i]", "out[at + i]"
        ),
        "NaN rows not noticed": Mutant("finite ? 1.0f /", "true ? 1.0f /"),
    },
    "gather_rows.cu": {
        "an index of rows taken": Mutant("row >= problem.rows", "row > problem.rows"),
        "negative indices taken": Mutant("row < 0 || row >=", "row >="),
        "one unit too many copied": Mutant("if (at < units) target", "if (at <= units) target"),
    },
    "product.cuh": {
        "copies not waited for": Mutant(
            "cp_async_wait<kStages - 2>();", "cp_async_wait<kStages - 1>();"
        ),
        "others' copies not waited for": Mutant(
            "is now replaced.\n    __syncthreads();", "is now replaced.\n"
        ),
        "words copied to another stage": Mutant(
            "load_stage<Element>(shared.b, slot, b,",
            "load_stage<Element>(shared.b, (stage + 1) % kStages * kTile, b,",
        ),
        "two vectors in one place": Mutant("(vector ^ (row & 7))", "(vector | (row & 7))"),
        "elements read past the end of a row": Mutant(
            "column + e < columns", "column + e <= columns"
        ),
        "vectors read past the end of a row": Mutant(
            "source != nullptr && column < columns;", "source != nullptr;"
        ),
        "sums of a chunk not cleared": Mutant("sums[j][e] = 0.0f;", "", "greedy"),
        "a tile loaded while the one before is read": Mutant(
            "__syncthreads();  // the next user of shared memory must not overtake a slow reader",
            "",
            "greedy",
        ),
    },
    "rows.cuh": {
        "a word of zeros divides by zero": Mutant(
            "fmaxf(sqrtf(squares), kNormEps * measure.scale)", "sqrtf(squares)"
        ),
        "each lane scales as it likes": Mutant(
            "scale_for(warp_max(largest))", "scale_for(largest)"
        ),
        "NaN taken for a huge row": Mutant("__all_sync(kFullWarp, finite) != 0", "true"),
        "huge rows scaled up": Mutant("min(126, -exponent)", "min(126, exponent)", "normalize"),
    },
    "compact.cuh": {
        "counts read before they are written": Mutant(
            "= __popc(votes);\n  __syncthreads();", "= __popc(votes);"
        ),
        "counts written before they are read": Mutant(
            "__syncthreads();  // warp_counts is written again for the next batch", ""
        ),
        "a candidate placed behind itself": Mutant("(1u << lane) - 1u", "(2u << lane) - 1u"),
    },
    "mutual_information.cu": {
        "rows written that are not there": Mutant(
            "if (row < a.count && word < b.count)", "if (word < b.count)"
        ),
        "masked words counted": Mutant(
            "if (!items.word_counts(item, j)) return {1.0f, 0.0f, false};", ""
        ),
        "broken rows counted": Mutant(
            "state[first + r] == kRowCounts) use(", "state[first + r] != kRowMasked) use("
        ),
        "masked rows in the number of rows": Mutant(
            "static_cast<float>(work.space.counted_rows[row.item])",
            "static_cast<float>(work.items.row_count(row.item))",
        ),
        "maxima not cleared": Mutant("work.space.column_maxima[table + j] = 0;", ""),
        # As an addition of floats would: what is small gets lost, depending on what came before.
        "sums that depend on the order of blocks": Mutant(
            "if (sum > 0) atomicAdd(&work.space.column_sums[table + j], sum);",
            """
            auto* cell = &work.space.column_sums[table + j];
            for (unsigned long long old = 0, seen = ~0ull; old != seen;) {
              old = seen == ~0ull ? 0 : seen;
              const float total = static_cast<float>(old) + static_cast<float>(sum);
              seen = atomicCAS(cell, old, static_cast<unsigned long long>(total));
            }
            """,
        ),
        "lengths of words written by every block": Mutant(
            "} else if (tile.first == 0 && own < b.count) {", "} else if (own < b.count) {"
        ),
        "a single word like several": Mutant(
            "Estimator::kSpecific && words == 1 ?", "Estimator::kSpecific && words == 0 ?"
        ),
    },
    "select.cu": {
        "the last place not written": Mutant("begins[segments] = begin;", ""),
        "all segments written to one place": Mutant("begins[s] = begin;", "begins[s] = 0;"),
        "rows of no segment left alone": Mutant(
            "scores[i] = -INFINITY;", "if (i < 0) scores[i] = 0;"
        ),
        "local rows in packed indices": Mutant(
            "absolute = items.visual_offsets != nullptr;", "absolute = false;"
        ),
        "covered rows one place on": Mutant(
            "is_covered(position, covered, counted)",
            "is_covered(position + 1, covered, counted)",
            "select",
        ),
        "masked rows covered": Mutant(
            "i < rows && state[first + i] == kRowCounts", "i < rows", "select"
        ),
        "coverage of all rows there are": Mutant(
            "static_cast<int64_t>(counted_rows[item])", "rows", "select"
        ),
    },
    "similarity.cuh": {
        "a row similar to itself": Mutant(
            "column < b.count && a.first + row != b.first + column", "column < b.count"
        ),
        "huge rows as they are": Mutant("if (rows.any_huge) replace", "if (false) replace"),
        "negative redundancies": Mutant(
            "fmaxf(exp_of(log_p) * (log_p + log_count), 0.0f)",
            "exp_of(log_p) * (log_p + log_count)",
        ),
    },
    "greedy.cu": {
        "a step overtaken by the next": Mutant("step % 2 * kWarps;", "0;"),
        "a row chosen twice": Mutant("if (position == chosen) candidate.sum = -1.0f;", ""),
        "similarities read before they are written": Mutant(
            "__syncthreads();\n    return row;", "return row;"
        ),
        "more similarities than there is room for": Mutant(
            "return end <= work.space.table_size ?", "return begin <= work.space.table_size ?"
        ),
        "one broken row too many": Mutant(
            "broken_before < broken_wanted", "broken_before <= broken_wanted"
        ),
        "masked rows in the number of rows": Mutant(
            "log_count(log_of(static_cast<float>(count)))",
            "log_count(log_of(static_cast<float>(all.problem.items.row_count(b))))",
        ),
        "ties to the higher row": Mutant(
            "~static_cast<uint32_t>(position);", "static_cast<uint32_t>(position);"
        ),
        "a covered row too few": Mutant("if (step < covered)", "if (step + 1 < covered)"),
        "covered rows are not redundant": Mutant(
            "if (step + 1 < steps) mine", "if (step + 1 < steps && step + 1 >= covered) mine"
        ),
    },
}


def compile_mutant(file, name, operation, folder):
    """The object of the kernels that the mistake is in, and the stem of their file."""
    mutant = MUTANTS[file][name]
    # The file whose kernels the operation runs through the mistake in a header.
    kernel = operation if operation in ("greedy", "normalize") else KERNELS[file][0]
    # All of csrc/cuda again, to be found before the files without the mistake.
    shutil.copytree(CSRC / "cuda", folder / "cuda")
    text = (CSRC / "cuda" / file).read_text()
    assert text.count(mutant.before) == 1, f"{file} has changed: write {name!r} anew"
    (folder / "cuda" / file).write_text(text.replace(mutant.before, mutant.after))
    # Without warnings: a mutant may leave something unused.
    flags = [*EMULATED, "-w", *MODES["checked"].kernels]
    source = folder / f"cuda/{kernel}.cu"
    return compile_object(source, folder / "mutant.o", *flags, includes=[folder]), kernel


@pytest.mark.skipif(not CXX, reason="g++ is not on the PATH")
@pytest.mark.parametrize(("file", "name"), [(f, name) for f in MUTANTS for name in MUTANTS[f]])
def test_mutants_are_caught(file, name, tmp_path):
    operation = MUTANTS[file][name].operation or KERNELS[file][1]
    broken, kernel = compile_mutant(file, name, operation, tmp_path)
    right = [o for k, o in builder().kernel_objects("checked").items() if k.stem != kernel]
    # The first of several equal functions is linked: the mutant's.
    program = builder().link(tmp_path / "mutant", "checked", [broken, *right])
    # The order that finds a mistake depends on the mistake.
    for order in ORDERS.values():
        done = run(program, "--order", order, "--count", 480, "--only", operation)
        if done.returncode != 0:
            assert operation in done.stdout, done.stdout + done.stderr
            return
    pytest.fail(f"{name!r} passed every case")
