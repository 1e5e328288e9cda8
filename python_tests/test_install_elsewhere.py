"""Other machines: Linux with an older glibc, and with another processor."""

import shutil
import sys

import pytest
from build_tools import SOURCE, environment, output, require, run, tool
from checkouts import with_tools
from consumers import C_ROWS

pytestmark = [pytest.mark.slow, pytest.mark.installs]
CONSUMER = SOURCE / "csrc/tests/consumer"


# ---- manylinux ----


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """As `make wheel` builds it, without CUDA."""
    folder = tmp_path_factory.mktemp("wheel")
    env = with_tools(
        MIPRUNER_CUDA="OFF", MIPRUNER_TORCH="ON", MIPRUNER_WERROR="ON",
        MIPRUNER_BUILD_DIR=folder / "build", CMAKE_ARGS="-DMIPRUNER_GLIBC=2.28",
    )  # fmt: skip
    pip = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index")
    output(*pip, "--wheel-dir", folder / "plain", SOURCE, env=env)
    (plain,) = (folder / "plain").glob("*.whl")
    platform = f"manylinux_2_28_{plain.stem.rpartition('linux_')[2]}"
    output(
        tool("auditwheel"), "repair", "--plat", platform,
        "--exclude", "libtorch.so", "--exclude", "libtorch_cpu.so", "--wheel-dir", folder, plain,
        env=env,
    )  # fmt: skip
    (repaired,) = folder.glob("*.whl")
    return repaired


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(wheel, folder, "zip")
    return folder


def test_a_wheel_for_glibc_2_28(wheel, site):
    assert "manylinux_2_28_" in wheel.name
    # Nothing was copied into it.
    assert not list(site.glob("*.libs"))
    assert (site / "mi_pruner_cuda/_ops.so").is_file()


@pytest.mark.parametrize("test", ["test_ops", "test_numpy", "test_c_api"])
def test_what_is_linked_so_works(site, tmp_path, test):
    """Exceptions above all, whose unwinder was linked with what it does not know."""
    done = run(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x",
        SOURCE / f"python_tests/{test}.py", cwd=tmp_path, env=environment(PYTHONPATH=site),
    )  # fmt: skip
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


def test_a_release_that_zig_does_not_know_is_refused(tmp_path):
    done = run(
        tool("cmake"), "-S", SOURCE, "-B", tmp_path, "-DMIPRUNER_CUDA=OFF", "-DMIPRUNER_GLIBC=1.9",
        f"-DMIPRUNER_PYTHON={sys.executable}", env=environment(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "MIPRUNER_GLIBC: got 1.9, but its symbols are not at hand" in " ".join(
        done.stderr.split()
    )


# ---- aarch64 ----


def test_aarch64(tmp_path):
    """Cross-compiled without a warning, and run on an emulated processor."""
    require(shutil.which("aarch64-linux-gnu-g++"), "g++-aarch64-linux-gnu")
    require(shutil.which("qemu-aarch64"), "qemu-user")
    output(
        tool("cmake"), "-S", CONSUMER, "-B", tmp_path, "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc",
        "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", "-DMIPRUNER_CUDA=OFF",
        "-DMIPRUNER_WERROR=ON", env=environment(),
    )  # fmt: skip
    output(tool("cmake"), "--build", tmp_path, "--parallel", 2, env=environment())

    def emulated(program):
        return output("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", tmp_path / program)

    assert emulated("keep_rows").split() == ["0", "2", "5"]
    assert emulated("keep_rows_mipruner") == emulated("keep_rows_static") == C_ROWS
    assert "workspace too small | workspace: got" in emulated("bad_input")
