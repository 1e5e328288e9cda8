"""pip and uv: every Python that is here, isolated builds, two at once, a source distribution."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from build_tools import SOURCE, output, run, tool
from checkouts import checkout, from_index, new_environment, with_tools
from consumers import C_ROWS, programs

import mi_pruner_cuda

pytestmark = [pytest.mark.slow, pytest.mark.installs]
TORCH = Path(torch.__file__).parent
# The rows that name the words, by NumPy alone.
SELECT = (
    "import sys; sys.modules['torch'] = None\n"
    "import numpy as np, mi_pruner_cuda\n"
    "x = np.eye(8, 16, dtype='float32')\n"
    "kept = mi_pruner_cuda.numpy.select(x, x[[2, 5]], 2, redundancy=0, coverage=0)\n"
    "print(kept.indices.tolist(), mi_pruner_cuda.__version__)\n"
)
SELECTED = f"[2, 5] {mi_pruner_cuda.__version__}\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """One CMake build folder for all of these: the kernels are compiled once."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture
def for_cpu(build):
    """The environment of a build for the processor, without torch."""
    return with_tools(
        MIPRUNER_CUDA="OFF", MIPRUNER_TORCH="OFF", MIPRUNER_WERROR="ON", MIPRUNER_BUILD_DIR=build
    )


def uv_install(interpreter, *arguments, env):
    return from_index(
        [tool("uv"), "pip", "install", "--python", interpreter, *arguments], env=env, cwd="/"
    )


def site_of(interpreter):
    asked = "import sysconfig; print(sysconfig.get_path('platlib'))"
    return Path(output(interpreter, "-c", asked).strip())


# ---- every Python ----


def candidates():
    """Programs that may be Pythons: on the PATH, and those that pyenv has installed."""
    for minor in range(10, 20):
        yield shutil.which(f"python3.{minor}")
    yield from (shutil.which("python3"), "/usr/bin/python3", sys.executable)
    yield from sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python"))


def pythons():
    """One interpreter with C headers of each supported version, by "3.N"."""
    ask = (
        "import os, sys, sysconfig as s\n"
        "there = os.path.isfile(os.path.join(s.get_path('include'), 'Python.h'))\n"
        "usable = there and sys.implementation.name == 'cpython' and sys.version_info >= (3, 10)\n"
        "print('3.%d' % sys.version_info[1] if usable else '')\n"
    )
    found = {}
    for program in filter(None, candidates()):
        version = run(program, "-c", ask).stdout.strip()
        if version:
            found.setdefault(version, str(program))
    return found


PYTHONS = pythons()


def test_the_python_that_runs_this_is_among_them():
    assert f"3.{sys.version_info.minor}" in PYTHONS


@pytest.mark.parametrize("version", sorted(PYTHONS, key=lambda v: int(v[2:])))
def test_a_wheel_for_every_python_that_is_here(source, build, for_cpu, tmp_path, version):
    needs = ("setuptools>=77", "pybind11>=2.13", "numpy>=1.24")
    interpreter = new_environment(tmp_path / "env", PYTHONS[version], *needs)
    shared = {f: f.stat().st_mtime_ns for f in build.rglob("*.o") if "_C.dir" not in str(f)}
    wheels = ["--wheel", "--no-build-isolation", "--python", interpreter, "--out-dir", tmp_path]
    output(tool("uv"), "build", *wheels, source, env=for_cpu)
    (wheel,) = tmp_path.glob("*.whl")
    tag = f"cp{version.replace('.', '')}"
    assert wheel.name.startswith(f"mi_pruner_cuda-{mi_pruner_cuda.__version__}-{tag}-{tag}-")
    assert all(f.stat().st_mtime_ns == before for f, before in shared.items())
    uv_install(interpreter, "--no-deps", wheel, env=for_cpu)
    assert output(interpreter, "-c", SELECT, cwd=tmp_path) == SELECTED
    # Both programs, each by its own name.
    mipruner = interpreter.parent / "mipruner"
    assert "CUDA kernels     not built" in output(mipruner, "info", cwd=tmp_path)
    assert output(mipruner, "prune", "--help").startswith("usage: mipruner prune ")
    module = output(interpreter, "-m", "mi_pruner_cuda", "prune", "--help", cwd=tmp_path)
    assert module.startswith("usage: python -m mi_pruner_cuda prune ")


# ---- uv ----


@pytest.mark.parametrize("how", ["installed", "editable"])
@pytest.mark.parametrize("with_torch", [False, True], ids=["no torch", "torch"])
def test_uv_builds_in_isolation(source, for_cpu, tmp_path, with_torch, how):
    """Into a fresh environment, which the torch of this one is lent to."""
    interpreter = new_environment(tmp_path / "env")
    site = site_of(interpreter)
    if with_torch:
        (site / "torch").symlink_to(TORCH)
    # As `source env/bin/activate` leaves it, on a machine without another environment.
    path = f"{interpreter.parent}:/usr/local/bin:/usr/bin:/bin"
    active = {**for_cpu, "VIRTUAL_ENV": str(tmp_path / "env"), "PATH": path, "PWD": "/"}
    active["MIPRUNER_TORCH"] = "AUTO"
    editable = ["--editable"] if how == "editable" else []
    uv_install(interpreter, *editable, source, env=active)
    assert output(interpreter, "-c", SELECT, cwd=tmp_path) == SELECTED
    package = source / "mi_pruner_cuda" if editable else site / "mi_pruner_cuda"
    assert (package / "_ops.so").exists() is with_torch
    if with_torch:
        loaded = "import torch, mi_pruner_cuda; print(torch.ops.mipruner.select)"
        env = with_tools(PYTHONPATH=package.parent)
        assert "mipruner.select" in output(sys.executable, "-c", loaded, cwd=tmp_path, env=env)


# ---- two at once ----


def test_two_wheels_of_one_tree_at_once(source, for_cpu, tmp_path):
    """From nothing, each with its own extra in the folder that both build in."""
    shutil.rmtree(source / "build", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    command += ["--no-index", "--wheel-dir"]
    env = {k: v for k, v in for_cpu.items() if k != "MIPRUNER_BUILD_DIR"}
    both = [
        subprocess.Popen(
            [*command, tmp_path / name, source], env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    contents = []
    for name in ("one", "two"):
        (wheel,) = (tmp_path / name).glob("*.whl")
        site = tmp_path / f"site {name}"
        shutil.unpack_archive(wheel, site, "zip")
        assert output(sys.executable, "-c", SELECT, env=with_tools(PYTHONPATH=site)) == SELECTED
        contents.append({str(f.relative_to(site)) for f in site.rglob("*")})
    assert contents[0] == contents[1]


# ---- the source distribution ----


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    """Made offline, by the tools that are here; unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    program = f"import setuptools.build_meta as b; b.build_sdist({str(folder)!r})"
    output(sys.executable, "-c", program, cwd=source, env=with_tools())
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"mi_pruner_cuda-{mi_pruner_cuda.__version__}"


def test_a_source_distribution_holds_the_sources_and_nothing_else(sdist):
    files = {str(f.relative_to(sdist)) for f in sdist.rglob("*") if f.is_file()}
    made = {"PKG-INFO", "setup.cfg"} | {
        f for f in files if f.startswith("mi_pruner_cuda.egg-info/")
    }
    known = re.compile(r"(csrc|mi_pruner_cuda)/.*|[^/]+")
    assert {
        f for f in files - made if not known.fullmatch(f) or not (SOURCE / f).is_file()
    } == set()
    assert not [f for f in files if f.endswith((".so", ".a", ".o", ".pyc")) or "native/" in f]
    assert {"CHANGELOG.md", "CITATION.cff", "csrc/glibc/stubs.py"} <= files
    assert sum((sdist / f).stat().st_size for f in files) < 10e6


def test_a_source_distribution_becomes_a_wheel_offline(sdist, for_cpu, tmp_path):
    output(
        sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-index", "--no-deps",
        "--wheel-dir", tmp_path, sdist, env=for_cpu,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    where = with_tools(PYTHONPATH=tmp_path / "site")
    assert output(sys.executable, "-c", SELECT, cwd=tmp_path, env=where) == SELECTED


def test_a_source_distribution_serves_plain_cmake(sdist, tmp_path):
    cmake, built, prefix = tool("cmake"), tmp_path / "b", tmp_path / "installed"
    env = with_tools()
    output(cmake, "-S", sdist, "-B", built, "-DMIPRUNER_CUDA=OFF", "-DMIPRUNER_TORCH=OFF", env=env)
    output(cmake, "--build", built, "--target", "mipruner_all_libraries", "--parallel", 2, env=env)
    output(cmake, "--install", built, "--component", "libraries", "--prefix", prefix)
    found = programs("c", tmp_path / "c", ["mipruner"], f"-DCMAKE_PREFIX_PATH={prefix}")
    assert output(found / "keep_rows_mipruner") == C_ROWS
