"""bench/kernel_table.py: every row of the targets, from the sources as they are."""

import json

import cuda_objects  # puts bench on the path
import kernel_table
import pytest
from gpu.timings import ROWS


class Registers(dict):
    """In place of a compilation."""

    def __missing__(self, kernel):
        return 64


def test_every_row_has_its_kernels(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kernel_table, "compile_registers", Registers)
    kernel_table.main(["--out", str(tmp_path)])
    data = json.loads((tmp_path / "kernels_computed.json").read_text())
    assert data["note"] == "computed, not measured"
    assert [row["name"] for row in data["rows"]] == [row.name for row in ROWS]
    for row in data["rows"]:
        # As few as the method needs, whatever the sizes.
        assert row["launches"] == len(row["kernels"]) == (12 if row["redundancy"] else 6)
        assert row["least_us"] == pytest.approx(sum(k["least_us"] for k in row["kernels"]))
        # The rows are read at least once.
        assert row["read"] >= 2 * (row["n"] + row["m"]) * row["d"]
        assert all(kernel["blocks_per_sm"] >= 1 for kernel in row["kernels"])
    text = (tmp_path / "kernels_computed.md").read_text()
    assert text == capsys.readouterr().out and "computed, not measured" in text
    assert all(f"| {row.name} |" in text for row in ROWS)


def test_occupancy_is_bounded_by_whatever_runs_out_first():
    launch = kernel_table.Launch("", 1, 128, 0)
    assert kernel_table.blocks_per_sm(launch, 32) == 16  # 2048 threads
    assert kernel_table.blocks_per_sm(launch, 168) == 3  # 65,536 registers
    assert kernel_table.blocks_per_sm(kernel_table.Launch("", 1, 32, 0), 32) == 32
    assert kernel_table.blocks_per_sm(kernel_table.Launch("", 1, 128, 49152), 32) == 4


@pytest.mark.slow
@pytest.mark.skipif(not cuda_objects.NVCC, reason="nvcc is not on the PATH")
def test_every_kernel_of_the_table_exists():
    """Under the names that nvcc gives, which the table takes registers by."""
    compiled = {k.name for k in cuda_objects.kernels() if k.architecture == 90}
    assert {launch.kernel for row in ROWS for launch in kernel_table.launches(row)} <= compiled
