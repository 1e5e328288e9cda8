"""The build: what the wheel holds, what the binaries depend on, and that it can be told what to
do."""

import json
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from build_tools import (
    C_LIBRARIES,
    PACKAGE,
    SOURCE,
    dynamic_section,
    environment,
    output,
    run,
    symbols,
    tool,
)
from consumers import C_ROWS, CXX_ROWS, compile_line, configure_project, installed_files, programs

import mi_pruner_cuda
from mi_pruner_cuda.build_info import build_info

# Of the system's own.
SYSTEM = {*C_LIBRARIES, "libstdc++.so.6", "libgcc_s.so.1"}
HAS_CUDA = build_info()["has_cuda"]

# ---- the torch library ----

# Every name of torch's that `_ops` may use: C functions of the stable ABI that torch 2.11 has
# (declared in torch/csrc/stable/c/shim.h and torch/csrc/inductor/aoti_torch/c/shim.h). Anything
# mangled with torch, at or c10 in it would tie the binary to one version. Before a name is added
# here, look up the release that it came with.
FAMILIES = r"aoti_torch_(device_type|dtype|layout|memory_format)_\w+"
ALLOWED = {
    "aoti_torch_abi_version",
    "aoti_torch_create_device_guard",
    "aoti_torch_delete_device_guard",
    "aoti_torch_delete_library_object",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_get_current_cuda_stream",
    "aoti_torch_get_device_index",
    "aoti_torch_get_device_type",
    "aoti_torch_get_dim",
    "aoti_torch_get_dtype",
    "aoti_torch_get_size",
    "aoti_torch_get_stride",
    "aoti_torch_library_def",
    "aoti_torch_library_init_def",
    "aoti_torch_library_init_impl",
    "aoti_torch_new_tensor_handle",
    "torch_call_dispatcher",
    "torch_delete_list",
    "torch_delete_string",
    "torch_dtype_float4_e2m1fn_x2",
    "torch_dtype_float8_e8m0fnu",
    "torch_get_const_data_ptr",
    "torch_get_mutable_data_ptr",
    "torch_get_num_threads",
    "torch_library_impl",
    "torch_list_get_item",
    "torch_list_push_back",
    "torch_list_size",
    "torch_new_list_reserve_size",
    "torch_parallel_for",
    "torch_string_c_str",
    "torch_string_length",
}


def test_ops_uses_torch_through_the_stable_abi_alone():
    undefined = symbols(PACKAGE / "_ops.so", "--undefined-only")
    torchs = {name for name in undefined if re.search(r"torch|c10|N2at|K2at", name)}
    assert {name for name in torchs if not re.fullmatch(FAMILIES, name)} <= ALLOWED


def test_c_needs_neither_torch_nor_a_cuda_library():
    """The CUDA runtime is a part of it, so that it loads where there is no CUDA and no driver."""
    file = next(PACKAGE.glob("_C.*so"))
    undefined = symbols(file, "--undefined-only")
    assert not {s for s in undefined if re.search(r"torch|c10|cuda|cublas", s)}
    assert dynamic_section(file)[0] <= SYSTEM


def test_kernels_know_nothing_of_torch():
    objects = sorted(SOURCE.glob("build/cmake-*/CMakeFiles/mipruner_cuda.dir/csrc/cuda/*.cu.o"))
    if not objects:
        pytest.skip("the kernels' object files are not at hand: no nvcc built this package")
    for file in objects:
        listing = run(tool("nm"), file)
        assert listing.returncode == 0, listing.stderr
        # nvcc puts a hash of the file into its names: "c10" alone may be a part of that.
        hashless = re.sub(r"_GLOBAL__N__[0-9a-f]{8}_", "", listing.stdout)
        assert not re.search(r"torch|c10|N2at|K2at", hashless), file


def test_binaries_find_torch_beside_the_package_and_need_nothing_else():
    needed, _, paths = dynamic_section(PACKAGE / "_ops.so")
    # libtorch.so must be there though nothing refers to it: on CUDA builds of torch it brings the
    # rest.
    assert {"libtorch.so", "libtorch_cpu.so"} <= needed
    assert needed - {"libtorch.so", "libtorch_cpu.so"} <= SYSTEM
    assert paths == ["$ORIGIN/../torch/lib"]


@pytest.mark.parametrize("name", ["_ops", "_C"])
def test_binaries_show_nothing_but_their_entry_point(name):
    """Hidden visibility: two copies of the core in one process must not meet."""
    file = next(PACKAGE.glob(f"{name}.*so")) if name == "_C" else PACKAGE / "_ops.so"
    assert not {n for n in symbols(file, "--defined-only", "--extern-only") if "mipruner" in n}


def test_no_folder_of_the_build_machine_is_in_the_binaries():
    for file in PACKAGE.glob("*.so"):
        assert str(SOURCE).encode() not in file.read_bytes()


# ---- CPU levels ----


def test_the_kernels_of_each_level_share_no_code():
    """A weak symbol in an object compiled for AVX-512 could be the copy that the linker keeps for
    all."""
    folders = "build/cmake-*/CMakeFiles/mipruner_kernels_*.dir"
    objects = sorted(SOURCE.glob(f"{folders}/**/kernels.cpp.o"))
    if not objects:
        pytest.skip("the kernels' object files are not at hand")
    for file in objects:
        listing = run(tool("nm"), "--defined-only", "--extern-only", "--format=posix", file).stdout
        weak = [line for line in listing.splitlines() if line.split()[1] in "WVu"]
        assert not weak, file


# ---- what CMake is told ----


@pytest.fixture(scope="module")
def configure(tmp_path_factory):
    """Configures (and does not build) the project with options; returns the finished process."""
    cmake = tool("cmake")

    def run_cmake(*options, **changes):
        build = tmp_path_factory.mktemp("build")
        return run(
            cmake, "-S", SOURCE, "-B", build, f"-DMIPRUNER_PYTHON={sys.executable}", *options,
            env=environment(**changes),
        )  # fmt: skip

    return run_cmake


def unwrapped(process):
    """CMake breaks its messages into lines."""
    return " ".join(process.stderr.split())


def no_nvcc_path(tmp_path):
    """A PATH with the compiler and everything else but no nvcc."""
    for program in ("c++", "g++", "gcc", "cc", "ld", "as", "ar", "ranlib", "nm", "make", "ninja"):
        found = shutil.which(program)
        if found:
            (tmp_path / program).symlink_to(found)
    return tmp_path


@pytest.mark.compiles
def test_without_nvcc_auto_builds_for_the_cpu_and_on_is_an_error(configure, tmp_path):
    path = no_nvcc_path(tmp_path)
    without = {"PATH": path, "CUDACXX": "", "CUDA_PATH": "", "CUDA_HOME": ""}
    if Path("/usr/local/cuda/bin/nvcc").is_file():
        without["CUDACXX"] = "/nonexistent/nvcc"  # CMake looks in that folder by itself
    auto = configure("-DMIPRUNER_CUDA=AUTO", **without)
    assert auto.returncode == 0, auto.stderr
    assert "CUDA OFF (no CUDA compiler found)" in auto.stdout
    on = configure("-DMIPRUNER_CUDA=ON", **without)
    assert on.returncode != 0 and "MIPRUNER_CUDA: got ON, but no CUDA compiler" in unwrapped(on)


@pytest.mark.compiles
def test_cuda_off_looks_for_no_compiler(configure):
    off = configure("-DMIPRUNER_CUDA=OFF")
    assert off.returncode == 0, off.stderr
    assert "CUDA compiler" not in off.stdout and "CUDA OFF;" in off.stdout


@pytest.fixture(scope="module")
def without_cuda(built_once):
    """The folder of a build for the processor alone."""
    options = ["-DMIPRUNER_CUDA=OFF", "-DMIPRUNER_TORCH=ON", f"-DMIPRUNER_PYTHON={sys.executable}"]
    options.append("-DMIPRUNER_WERROR=ON")  # as the package was built: ccache has most of it

    def build(folder):
        cmake = tool("cmake")
        output(cmake, "-S", SOURCE, "-B", folder, *options, env=environment())
        output(cmake, "--build", folder, "--parallel", 2, env=environment())

    return built_once("without_cuda", build)


@pytest.mark.slow
def test_cuda_off_names_no_cuda_symbol(without_cuda):
    file = next(without_cuda.glob("_C.*so"))
    assert dynamic_section(file)[0] <= SYSTEM
    # Of all symbols, not only those that other libraries see; functions of ours are mangled.
    names = [line.split()[-1] for line in run(tool("nm"), file).stdout.splitlines()]
    assert names and not [name for name in names if re.match(r"_*(cuda|cu[A-Z])", name)]


@pytest.mark.slow
def test_cuda_off_says_so_to_a_cuda_tensor(without_cuda, tmp_path):
    """In a process of its own, as a test of that build's operators."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "mi_pruner_cuda", ignore=shutil.ignore_patterns("*.so"))
    for file in without_cuda.glob("_*.so"):
        shutil.copy2(file, site / "mi_pruner_cuda")
    test = SOURCE / "python_tests/test_ops.py"
    done = run(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-k", "meet_a_sentence",
        test, cwd=tmp_path, env=environment(PYTHONPATH=site),
    )  # fmt: skip
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


ALL_ARCHITECTURES = ["80-real", "86-real", "89-real", "90", "100-real", "120"]


def with_nvcc(tmp_path, codes):
    """The environment of a machine whose nvcc says that it knows these architectures."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on the PATH")
    wrapper = tmp_path / "nvcc"
    wrapper.write_text(
        f'#!/bin/sh\n[ "$*" = --list-gpu-code ] && printf "{codes}" && exit 0\nexec {nvcc} "$@"\n'
    )
    wrapper.chmod(0o755)
    return {"CUDACXX": wrapper}


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (
            "sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_100 sm_103 sm_120 sm_121",
            ALL_ARCHITECTURES,
        ),
        (
            "sm_50 sm_75 sm_80 sm_86 sm_87 sm_89 sm_90 sm_90a",
            ["80-real", "86-real", "89-real", "90"],
        ),
    ],
    ids=["CUDA 13", "CUDA 12.4"],
)
def test_kernels_are_built_for_the_architectures_that_nvcc_knows(
    configure, tmp_path, known, expected
):
    lines = known.replace(" ", "\\n") + "\\n"
    done = configure("-DMIPRUNER_TORCH=OFF", **with_nvcc(tmp_path, lines))
    assert done.returncode == 0, done.stderr
    assert f"architectures {','.join(expected)})" in done.stdout


@pytest.mark.compiles
def test_nvcc_that_is_too_old_is_refused_and_a_choice_is_kept(configure, tmp_path):
    changes = with_nvcc(tmp_path, "sm_50\\nsm_75\\n")
    old = configure("-DMIPRUNER_TORCH=OFF", **changes)
    assert old.returncode != 0 and "compiles for none of sm_80 to sm_120" in unwrapped(old)
    chosen = configure("-DMIPRUNER_TORCH=OFF", "-DCMAKE_CUDA_ARCHITECTURES=90", **changes)
    assert chosen.returncode == 0 and "architectures 90)" in chosen.stdout


@pytest.mark.compiles
def test_torch_off_and_wrong_folders(configure, tmp_path):
    off = configure("-DMIPRUNER_TORCH=OFF", "-DMIPRUNER_CUDA=OFF")
    assert off.returncode == 0 and "torch ops OFF" in off.stdout
    wrong = configure(f"-DMIPRUNER_TORCH_DIR={tmp_path}", "-DMIPRUNER_CUDA=OFF")
    assert wrong.returncode != 0 and "no torch package folder" in unwrapped(wrong)
    typo = configure("-DMIPRUNER_TORCH=YES")
    assert typo.returncode != 0 and 'MIPRUNER_TORCH: got "YES", allowed are AUTO' in unwrapped(typo)


def find_torch(*arguments, **options):
    return run(sys.executable, *arguments, **options).stdout.strip()


def test_torch_is_found_without_importing_it(tmp_path):
    script = SOURCE / "csrc/torch/find_torch.py"
    expected = f"{Path(torch.__file__).parent};{torch.__version__}"
    assert find_torch(script, "") == expected
    # An isolated pip build takes site-packages off the module path in this very way.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, sysconfig\n"
        "hidden = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}\n"
        "sys.path[:] = [p for p in sys.path if p not in hidden]\n"
    )
    isolated = environment(PYTHONPATH=tmp_path)
    assert run(sys.executable, "-c", "import torch", env=isolated).returncode == 1
    assert find_torch(script, "", env=isolated) == expected


def test_torch_of_the_active_environment_is_found_by_tools_that_isolate_in_another(tmp_path):
    environment_folder = tmp_path / ".venv"
    base = {"base": str(environment_folder)}
    folder = Path(sysconfig.get_path("purelib", "posix_prefix", base)) / "torch"
    below = tmp_path / "below"
    below.mkdir()
    stable = folder / "include/torch/csrc/stable"
    stable.mkdir(parents=True)
    (stable / "library.h").touch()
    (folder / "version.py").write_text("__version__ = '2.12.0+cpu'\n")
    # Inactive and elsewhere.
    nowhere = {"PATH": "/usr/bin:/bin", "PWD": "/", "VIRTUAL_ENV": "/nonexistent"}

    def found_with(**changes):
        return run(
            sys._base_executable, SOURCE / "csrc/torch/find_torch.py", "",
            env=environment(**{**nowhere, **changes}), cwd="/",
        ).stdout.strip()  # fmt: skip

    if not found_with().startswith(";"):
        pytest.skip("the base interpreter has a torch of its own, which goes first")
    expected = f"{folder};2.12.0+cpu"
    assert found_with(VIRTUAL_ENV=environment_folder) == expected
    # uv sets VIRTUAL_ENV to the environment that it builds in.
    assert found_with(PATH=f"/usr/bin:{environment_folder}/bin:/bin") == expected
    assert found_with(PWD=environment_folder.parent) == expected
    assert found_with(PWD=below) == expected


def test_torch_that_cannot_be_used_is_refused_with_the_reason(tmp_path):
    script = SOURCE / "csrc/torch/find_torch.py"
    folder = tmp_path / "torch"
    (folder / "include").mkdir(parents=True)
    (folder / "version.py").write_text("__version__ = '2.10.1+cpu'\n")
    assert find_torch(script, folder) == f";torch 2.10.1+cpu in {folder} is older than 2.11"
    (folder / "version.py").write_text("__version__ = '2.11.0'\n")
    assert find_torch(script, folder) == f";torch 2.11.0 in {folder} has no C++ headers"


# ---- the wheel ----


@pytest.fixture(scope="module")
def wheel(built_once):
    """Built as an offline machine would, from the objects at hand.

    With the options of `make install`: others would compile every kernel again.
    """

    def build(folder):
        output(
            sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index",
            "--wheel-dir", folder, SOURCE, env=environment(MIPRUNER_WERROR="ON"),
        )  # fmt: skip

    return next(built_once("wheel", build).glob("*.whl"))


@pytest.mark.slow
def test_wheel_name_and_contents(wheel):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(
        rf"mi_pruner_cuda-{re.escape(mi_pruner_cuda.__version__)}-{tag}-{tag}-\w+\.whl", wheel.name
    )
    names = set(zipfile.ZipFile(wheel).namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    expected = {f"mi_pruner_cuda/_C{suffix}", "mi_pruner_cuda/_ops.so"}
    expected |= {f"mi_pruner_cuda/native/{file}" for file in installed_files(cuda=HAS_CUDA)}
    expected |= {
        str(file.relative_to(SOURCE))
        for pattern in (
            "**/*.py",
            "py.typed",
            "demo/model/*",
            "demo/*.png",
            "demo/*.json",
            "html_page/*.html",
            "html_page/*.css",
            "html_page/*.js",
        )
        for file in (SOURCE / "mi_pruner_cuda").glob(pattern)
    }
    assert expected <= names, expected - names
    # Nothing else: no tests, no sources, no leftovers.
    others = names - expected
    assert all(".dist-info/" in name for name in others), others
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_requires_no_torch(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(
        next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    ).decode()
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert [r for r in required if "extra ==" not in r] == ["numpy>=1.24"]
    assert 'torch>=2.11; extra == "torch"' in required
    assert "License-Expression: Apache-2.0" in metadata


@pytest.fixture(scope="module")
def installed(wheel, built_once):
    """The wheel, installed in a folder of its own."""
    pip = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps")
    return built_once("site", lambda folder: output(*pip, "--target", folder, wheel))


@pytest.mark.slow
def test_installed_wheel_works(installed, tmp_path):
    program = """
        import json, torch, mi_pruner_cuda
        from mi_pruner_cuda.build_info import build_info
        visual, text = torch.randn(576, 4096), torch.randn(64, 4096)
        indices, scores = torch.ops.mipruner.select(visual, text, 64)
        where = mi_pruner_cuda.__file__
        print(json.dumps([list(indices.shape), list(scores.shape), where, build_info()]))
    """
    lines = [line.strip() for line in program.strip().splitlines()]
    done = run(
        sys.executable, "-c", "\n".join(lines), cwd=tmp_path, env=environment(PYTHONPATH=installed)
    )
    assert done.returncode == 0, done.stderr
    indices, scores, where, info = json.loads(done.stdout)
    assert indices == [64] and scores == [576]
    assert Path(where).is_relative_to(installed)
    assert info["torch_ops"] is True


@pytest.mark.slow
def test_a_build_without_torch_ops_says_so_and_serves_numpy(installed, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    (site / "mi_pruner_cuda/_ops.so").unlink()
    program = (
        "import numpy as np, mi_pruner_cuda\n"
        "x = np.eye(4, 8, dtype='float32')\n"
        "kept = mi_pruner_cuda.numpy.select(x, x[:2], 2, redundancy=0, coverage=0)\n"
        "print(kept.indices.tolist())\n"
        "mi_pruner_cuda.ops\n"
    )
    done = run(sys.executable, "-c", program, cwd=tmp_path, env=environment(PYTHONPATH=site))
    assert done.stdout == "[0, 1]\n"
    assert "RuntimeWarning: torch.ops.mipruner is not available" in done.stderr
    assert "ImportError: mi_pruner_cuda was built without its torch ops" in done.stderr


def folder_in(site, function):
    """What one of the wheel's functions prints, in the place of a shell's $(...)."""
    program = f"import mi_pruner_cuda; print(mi_pruner_cuda.{function}())"
    env = environment(PYTHONPATH=site)
    return output(sys.executable, "-c", program, cwd=site, env=env).strip()


@pytest.mark.slow
def test_projects_in_c_and_cpp_find_the_library_in_the_wheel(installed, tmp_path):
    where = f"-Dmipruner_DIR={folder_in(installed, 'get_cmake_dir')}"
    components = ["mipruner", "static", *["cuda"] * HAS_CUDA]
    in_c = programs("c", tmp_path / "c", components, where)
    in_cxx = programs("cxx", tmp_path / "cxx", ["mipruner"], where)
    assert [output(in_c / f"keep_rows_{name}") for name in components] == [C_ROWS] * len(components)
    assert output(in_cxx / "keep_rows_mipruner_17").startswith(CXX_ROWS)


@pytest.mark.slow
def test_a_line_for_the_compiler_finds_the_library_in_the_wheel(installed, tmp_path):
    include, library = folder_in(installed, "get_include"), folder_in(installed, "get_library_dir")
    # A wheel holds no symbolic links.
    assert Path(library, "libmipruner.so").read_text() == "INPUT(libmipruner.so.1)\n"
    program = tmp_path / "keep_rows"
    compile_line(program, f"-I{include}", f"-L{library}", "-lmipruner", f"-Wl,-rpath,{library}")
    assert output(program) == C_ROWS
    assert "libmipruner.so.1" in dynamic_section(program)[0]


@pytest.mark.slow
def test_a_build_for_the_processor_alone_has_no_cuda_component(without_cuda, tmp_path):
    output(tool("cmake"), "--install", without_cuda, "--prefix", tmp_path / "installed")
    where = f"-DCMAKE_PREFIX_PATH={tmp_path}/installed"
    done = configure_project("c", tmp_path / "build", ["cuda"], where)
    assert done.returncode != 0
    assert "are mipruner, static, llama (cuda where it was built with nvcc)" in unwrapped(done)


@pytest.mark.slow
def test_source_distribution_holds_what_a_build_needs(tmp_path):
    # From a copy without leftovers: setuptools believes the file list of an earlier build.
    left_out = shutil.ignore_patterns(
        ".*", "build", "bench", "native", "*.egg-info", "*.so", "__pycache__"
    )
    source = shutil.copytree(SOURCE, tmp_path / "source", ignore=left_out)
    program = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})"
    done = run(sys.executable, "-c", program, cwd=source, env=environment())
    assert done.returncode == 0, done.stderr
    archive = next(tmp_path.glob("*.tar.gz"))
    listing = run("tar", "-tzf", archive).stdout.split()
    names = {name.partition("/")[2] for name in listing}
    needed = {
        str(file.relative_to(SOURCE))
        for folder in ("csrc", "mi_pruner_cuda")
        for file in (SOURCE / folder).rglob("*")
        if file.is_file()
        and file.suffix not in (".so", ".pyc")
        and "_cache/" not in str(file)
        and "native" not in file.parts
    }
    needed |= {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md"}
    assert needed <= names, needed - names
