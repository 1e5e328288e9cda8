"""CMake alone, from a checkout on a machine with a compiler and little else."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from build_tools import environment, output, run, tool
from checkouts import checkout, from_index
from consumers import C_ROWS, compile_line, installed_files, programs

pytestmark = pytest.mark.installs
# Without it CMake finds the system's Python on every PATH.
PATH_ALONE = "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF"
SYSTEM = ("c++", "g++", "gcc", "cc", "ld", "as", "ar", "ranlib", "nm", "make", "sh", "uname")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("source"))


@pytest.fixture
def bare(tmp_path):
    """The environment of a machine whose PATH has a compiler and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in SYSTEM:
        (folder / program).symlink_to(shutil.which(program))
    (folder / "ninja").symlink_to(tool("ninja"))
    no_cuda = {"CUDACXX": "/nonexistent/nvcc", "CUDA_PATH": "", "CUDA_HOME": ""}
    return environment(PATH=folder, PWD="/", VIRTUAL_ENV="/nonexistent", **no_cuda)


def add_python(bare, pybind11=False):
    """Puts a Python with headers and nothing else on that PATH, or one with what there is here."""
    program = Path(bare["PATH"]) / "python3"
    isolated = "" if pybind11 else "-I -S "
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {isolated}"$@"\n')
    program.chmod(0o755)


def configure(source, build, bare, *options, cmake=None):
    return run(cmake or tool("cmake"), "-S", source, "-B", build, *options, env=bare)


def states(done):
    """What the status line says, by part."""
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "CPU levels" in line]
    parts = line.split("; ")
    return {name: next(p for p in parts if p.startswith(name)) for name in ("Python", "torch")}


def complaint(done):
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_without_python_the_c_library_is_what_is_built(source, tmp_path, bare):
    assert states(configure(source, tmp_path / "b", bare, PATH_ALONE)) == {
        "Python": "Python module OFF (no Python was found)",
        "torch": "torch ops OFF (no Python was found)",
    }


def test_without_pybind11_the_status_says_so(source, tmp_path, bare):
    add_python(bare)
    done = configure(source, tmp_path / "b", bare, "-DMIPRUNER_TORCH=OFF")
    assert states(done)["Python"].startswith(
        "Python module OFF (no pybind11 2.13 or newer was found for "
    )
    assert "CMake Warning" not in done.stderr


def test_with_pybind11_the_module_is_built(source, tmp_path, bare):
    add_python(bare, pybind11=True)
    done = configure(source, tmp_path / "b", bare, "-DMIPRUNER_TORCH=OFF")
    version = ".".join(str(part) for part in sys.version_info[:3])
    assert states(done)["Python"].startswith(f"Python module ON (Python {version}, pybind11 ")


def test_what_was_asked_for_and_cannot_be_had_is_an_error(source, tmp_path, bare):
    def refused(*options):
        return complaint(configure(source, tmp_path / "b", bare, PATH_ALONE, *options))

    assert "MIPRUNER_PYTHON_MODULE: got ON, but no Python was found" in refused(
        "-DMIPRUNER_PYTHON_MODULE=ON"
    )
    assert "MIPRUNER_TORCH: got ON, but no Python was found" in refused(
        "-DMIPRUNER_PYTHON_MODULE=OFF", "-DMIPRUNER_TORCH=ON"
    )
    assert 'MIPRUNER_PYTHON_MODULE: got "maybe", allowed are AUTO, ON and OFF' in refused(
        "-DMIPRUNER_PYTHON_MODULE=maybe"
    )
    add_python(bare)
    assert "MIPRUNER_PYTHON_MODULE: got ON, but no pybind11 2.13 or newer" in refused(
        "-DMIPRUNER_PYTHON_MODULE=ON"
    )


@pytest.mark.parametrize("answer", ["echo False", "echo no such file >&2; exit 1"])
def test_a_python_that_does_not_serve_is_passed_over_or_refused(source, tmp_path, bare, answer):
    """Too old, or a launcher without a Python behind it."""
    program = Path(bare["PATH"]) / "python3"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    reason = "is older than Python 3.10" if "False" in answer else "failed (1): no such file"
    assert reason in states(configure(source, tmp_path / "b", bare))["Python"]
    given = configure(source, tmp_path / "c", bare, f"-DMIPRUNER_PYTHON={program}")
    assert f"MIPRUNER_PYTHON: got {program}, but " in complaint(given)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["Unix Makefiles", "Ninja"])
def test_a_bare_checkout_is_built_and_installed(source, tmp_path, bare, generator):
    """In the tree itself, whose path has a space, as the README says."""
    build, prefix = source / f"build {generator}", tmp_path / "an installation"
    done = configure(source, build, bare, "-G", generator, "-DMIPRUNER_WERROR=ON")
    assert done.returncode == 0, done.stderr
    output(tool("cmake"), "--build", build, "--parallel", 2, env=bare)
    output(tool("cmake"), "--install", build, "--prefix", prefix, env=bare)
    found = {str(f.relative_to(prefix)) for f in prefix.rglob("*") if not f.is_dir()}
    assert found == installed_files()
    where = f"-Dmipruner_DIR={prefix}/lib/cmake/mipruner"
    built = programs("c", tmp_path / "c", ["mipruner", "static"], where)
    assert [output(built / f"keep_rows_{name}") for name in ("mipruner", "static")] == [C_ROWS] * 2
    flags = ("-I", prefix / "include", "-L", prefix / "lib", "-lmipruner")
    compile_line(tmp_path / "keep_rows", *flags, f"-Wl,-rpath,{prefix}/lib")
    assert output(tmp_path / "keep_rows") == C_ROWS


@pytest.mark.slow
def test_nvcc_takes_a_path_with_a_space(source, tmp_path):
    """One kernel, for one architecture."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    done = configure(
        source, tmp_path / "a build", environment(), "-G", "Ninja", "-DMIPRUNER_CUDA=ON",
        "-DMIPRUNER_PYTHON_MODULE=OFF", "-DMIPRUNER_TORCH=OFF", "-DCMAKE_CUDA_ARCHITECTURES=90",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kernel = "CMakeFiles/mipruner_cuda.dir/csrc/cuda/gather_rows.cu.o"
    output(tool("ninja"), "-C", tmp_path / "a build", kernel)
    assert b"a checkout" not in (tmp_path / "a build" / kernel).read_bytes()


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    """CMake 3.18, the oldest that CMakeLists.txt asks for."""
    folder = tmp_path_factory.mktemp("cmake")
    from_index([tool("uv"), "pip", "install", "--target", folder, "cmake==3.18.4.post1"])
    return folder / "cmake/data/bin/cmake"


@pytest.mark.parametrize("which", ["oldest", "system's"])
def test_other_versions_of_cmake_configure_it(source, tmp_path, bare, request, which):
    """The one of this environment, the newest, is that of all other tests."""
    cmake = request.getfixturevalue("oldest") if which == "oldest" else "/usr/bin/cmake"
    if not os.path.exists(cmake):
        pytest.skip("the system has no CMake of its own")
    add_python(bare, pybind11=True)
    done = configure(source, tmp_path / "b", bare, "-DMIPRUNER_TORCH=OFF", cmake=cmake)
    assert states(done)["Python"].startswith("Python module ON")
    assert "Warning" not in done.stderr, done.stderr
