"""What nvcc makes of the kernels, on every architecture: no warnings, no spills, and the
instructions that they are written for."""

import json
from concurrent.futures import ThreadPoolExecutor

import cuda_objects
import pytest
from cuda_objects import ARCHITECTURES, KERNELS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiles,
    pytest.mark.skipif(not cuda_objects.NVCC, reason="nvcc is not on the PATH"),
]

HALVES = ("Half", "BFloat16")
# Those that multiply tiles, and thereby read rows of elements.
PRODUCTS = ("product_kernel", "similarities_kernel", "representatives_kernel")
PRODUCTS += ("computed_steps_kernel",)


@pytest.fixture(scope="module")
def kernels():
    return cuda_objects.kernels()


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    """{(kernel, architecture): Counter} of all kernels."""
    folder = tmp_path_factory.mktemp("sass")
    cuda_objects.build_folder()
    counts = {}
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(cuda_objects.instructions, source, folder / source.stem)
            for source in KERNELS
        ]
    for done in work:
        counts |= done.result()
    return counts


def test_warnings_of_either_compiler_are_errors():
    commands = json.loads((cuda_objects.build_folder() / "compile_commands.json").read_text())
    by_file = {entry["file"]: entry["command"] for entry in commands}
    for source in KERNELS:
        options = by_file[str(source)].split()
        assert "-Werror=all-warnings" in options and "-Xcompiler=-Werror" in options
        assert any(o.startswith("-Xcompiler=-Wall,-Wextra,-Wshadow") for o in options)


def test_every_file_is_compiled_for_every_architecture(kernels):
    assert KERNELS
    for source in KERNELS:
        here = [kernel for kernel in kernels if kernel.source == source.name]
        assert {kernel.architecture for kernel in here} == set(ARCHITECTURES), source
        names = [kernel.name for kernel in here]
        assert {names.count(name) for name in names} == {len(ARCHITECTURES)}, source
        # For what comes after the newest, and for what is numbered between two of these.
        assert cuda_objects.ptx_architectures(source) == {90, max(ARCHITECTURES)}


def test_no_kernel_spills_registers_or_has_a_stack(kernels):
    assert not [kernel for kernel in kernels if kernel.stack or kernel.local]


def test_no_kernel_touches_local_memory(instructions):
    touching = {key: n["LDL"] + n["STL"] for key, n in instructions.items() if n["LDL"] + n["STL"]}
    assert not touching


def test_several_blocks_of_a_product_fit_the_registers_of_an_sm(kernels):
    """65,536 registers, which warps take 256 at a time."""
    tiles = [kernel for kernel in kernels if kernel.name.startswith(PRODUCTS)]
    assert len(tiles) == len(PRODUCTS) * 3 * len(ARCHITECTURES)
    for kernel in tiles:
        warp = -(-kernel.registers * 32 // 256) * 256
        # Sums of exponentials need registers too.
        fewest = 3 if kernel.name.startswith("product_kernel") else 2
        assert 65536 // (4 * warp) >= fewest, kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_halves_are_multiplied_by_tensor_cores_out_of_asynchronous_copies(
    instructions, architecture
):
    for name in PRODUCTS:
        for element in HALVES:
            counts = instructions[f"{name}<{element}>", architecture]
            # 4 steps of 16 elements; 8 products of 8 columns each, which 1 + 4 loads feed.
            assert counts["HMMA"] == 32 and counts["LDSM"] == 20, (name, element, counts)
            assert counts["LDGSTS"] >= 8, (name, element, counts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_is_multiplied_in_float32(instructions, architecture):
    for name in PRODUCTS:
        counts = instructions[f"{name}<float>", architecture]
        assert counts["HMMA"] == 0 and counts["FFMA"] >= 32, (name, counts)
        assert counts["LDGSTS"] >= 8, (name, counts)
