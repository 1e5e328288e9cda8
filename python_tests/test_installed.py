"""What `cmake --install` makes, as other people's projects in C and C++ use it: by find_package and
by pkg-config, after the folder was moved, whatever the library folder is called."""

import subprocess
import sys

import pytest
from build_tools import SOURCE, dynamic_section, environment, output, run, tool
from consumers import C_ROWS, CXX_ROWS, compile_line, configure_project, installed_files, programs

import mi_pruner_cuda
from mi_pruner_cuda import c_library

pytestmark = [pytest.mark.slow, pytest.mark.compiles]
# Where libraries go, and where headers.
FOLDERS = {"lib64": "include", "lib/x86_64-linux-gnu": "include/engines"}
SHARED, STATIC, CUDA = "mipruner", "static", "cuda"


def configure_mipruner(build, *options):
    """With libmipruner_cuda in it, whose device is emulated: no nvcc is needed."""
    return run(
        tool("cmake"), "-S", SOURCE, "-B", build, "-DMIPRUNER_CUDA=EMULATED",
        "-DMIPRUNER_PYTHON_MODULE=OFF", "-DMIPRUNER_TORCH=OFF", "-DMIPRUNER_WERROR=ON", *options,
        env=environment(),
    )  # fmt: skip


def install(folder):
    """Builds in folder/build and installs folder/<number of libdir>/before for each of FOLDERS."""
    build = folder / "build"
    for number, (libdir, includedir) in enumerate(FOLDERS.items()):
        configured = configure_mipruner(
            build, f"-DCMAKE_INSTALL_LIBDIR={libdir}", f"-DCMAKE_INSTALL_INCLUDEDIR={includedir}"
        )
        assert configured.returncode == 0, configured.stderr
        output(tool("cmake"), "--build", build, "--parallel", 2, env=environment())
        here = folder / str(number)
        output(tool("cmake"), "--install", build, "--prefix", here / "before")
        (here / "before").rename(here / "after")


@pytest.fixture(scope="module")
def installations(built_once):
    return built_once("installations", install)


@pytest.fixture(scope="module")
def build(installations):
    """The build folder of all installations."""
    return installations / "build"


@pytest.fixture(scope="module", params=FOLDERS)
def libdir(request):
    return request.param


@pytest.fixture(scope="module")
def prefix(installations, libdir):
    """An installation that was moved after it was installed."""
    return installations / str(list(FOLDERS).index(libdir)) / "after"


@pytest.fixture
def find_it(prefix, libdir):
    """The option by which CMake finds it. Of itself, CMake looks into lib64 only on systems that
    have such a folder."""
    if libdir == "lib64":
        return f"-Dmipruner_DIR={prefix}/lib64/cmake/mipruner"
    return f"-DCMAKE_PREFIX_PATH={prefix}"


# ---- what is installed ----


def test_it_holds_the_libraries_and_their_headers_and_nothing_else(prefix, libdir):
    files = {str(f.relative_to(prefix)) for f in prefix.rglob("*") if not f.is_dir()}
    assert files == installed_files(libdir, FOLDERS[libdir], cuda=True)
    link = prefix / libdir / "libmipruner.so"
    assert link.is_symlink() and str(link.readlink()) == "libmipruner.so.1"


def test_no_file_names_the_folders_of_the_build(prefix, build):
    folders = [str(folder).encode() for folder in (SOURCE, build, prefix.with_name("before"))]
    for file in (f for f in prefix.rglob("*") if f.is_file()):
        if file.name.startswith("libmipruner_cuda"):
            continue  # the emulator in it does; of the real one, test_exports.py shows the same
        content = file.read_bytes()
        assert not [folder for folder in folders if folder in content], file


# ---- CMake ----


def test_a_project_in_c(find_it, tmp_path):
    built = programs("c", tmp_path, [SHARED, STATIC, CUDA], find_it)
    needed = {}
    for component in (SHARED, STATIC, CUDA):
        program = built / f"keep_rows_{component}"
        assert output(program) == C_ROWS
        needed[component] = {name for name in dynamic_section(program)[0] if "mipruner" in name}
    assert needed == {
        SHARED: {"libmipruner.so.1"},
        STATIC: set(),
        CUDA: {"libmipruner_cuda.so.1"},
    }


def test_a_project_in_cpp(find_it, tmp_path):
    components = [SHARED, STATIC, "llama"]
    built = programs("cxx", tmp_path, components, find_it)
    for component in components:
        for standard in (17, 20):
            assert output(built / f"keep_rows_{component}_{standard}").startswith(CXX_ROWS)


@pytest.mark.parametrize(
    ("version", "found"),
    [("0.2", True), (mi_pruner_cuda.__version__, True), ("0.1", False), ("1", False)],
)
def test_the_version_is_that_of_the_package(find_it, tmp_path, version, found):
    done = configure_project("c", tmp_path, [SHARED], find_it, f"-DVERSION={version}")
    assert (done.returncode == 0) is found
    if not found:
        assert "not compatible with the version requested" in " ".join(done.stderr.split())


def test_a_component_that_is_not_there_is_an_error_that_names_those_that_are(
    prefix, find_it, tmp_path
):
    done = configure_project("c", tmp_path, [SHARED, "metal"], find_it)
    assert done.returncode != 0
    allowed = f"allowed with the mipruner in {prefix} are mipruner, static, cuda, llama"
    assert f"COMPONENTS: got metal, {allowed}" in " ".join(done.stderr.split())


def test_an_absolute_library_folder_is_refused(tmp_path):
    absolute = tmp_path / "lib"
    done = configure_mipruner(tmp_path / "build", f"-DCMAKE_INSTALL_LIBDIR={absolute}")
    assert done.returncode != 0
    refused = f"CMAKE_INSTALL_LIBDIR: got {absolute}, allowed is a path relative to"
    assert refused in " ".join(done.stderr.split())


# ---- pkg-config ----


def pkg_config(prefix, libdir, *options):
    where = environment(PKG_CONFIG_PATH=prefix / libdir / "pkgconfig")
    return output(tool("pkgconf"), *options, "mipruner", env=where).split()


def test_a_line_for_the_compiler(prefix, libdir, tmp_path):
    flags = pkg_config(prefix, libdir, "--cflags", "--libs")
    compile_line(tmp_path / "keep_rows", *flags, f"-Wl,-rpath,{prefix / libdir}")
    assert output(tmp_path / "keep_rows") == C_ROWS
    assert "libmipruner.so.1" in dynamic_section(tmp_path / "keep_rows")[0]
    assert pkg_config(prefix, libdir, "--modversion") == [mi_pruner_cuda.__version__]


def test_a_line_for_the_compiler_where_only_the_archive_is(prefix, libdir, tmp_path):
    """As on a system that installs no shared libraries: linkers prefer them where they are."""
    alone = tmp_path / "alone"
    subprocess.run(["cp", "-a", prefix, alone], check=True)
    for file in (alone / libdir).glob("*.so*"):
        file.unlink()
    flags = pkg_config(alone, libdir, "--static", "--cflags", "--libs")
    compile_line(tmp_path / "keep_rows", *flags)
    assert output(tmp_path / "keep_rows") == C_ROWS


# ---- Python says where its own is ----


@pytest.mark.parametrize(
    ("function", "file"),
    [
        (mi_pruner_cuda.get_include, "mipruner/mipruner.h"),
        (mi_pruner_cuda.get_library_dir, "libmipruner.so.1"),
        (mi_pruner_cuda.get_cmake_dir, "mipruner-config.cmake"),
    ],
)
def test_python_names_folders_that_are_there(function, file, tmp_path, monkeypatch):
    folder = function()
    assert isinstance(folder, str)
    assert output("ls", f"{folder}/{file}") == f"{folder}/{file}\n"
    monkeypatch.setattr(c_library, "__file__", str(tmp_path / "c_library.py"))
    with pytest.raises(FileNotFoundError, match=r"native/.* is not there: this copy of mi_pruner"):
        function()


def test_python_names_them_without_torch(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import mi_pruner_cuda as m\n"
        "print(m.get_include(), m.get_library_dir(), m.get_cmake_dir())\n"
    )
    expected = (
        f"{c_library.get_include()} {c_library.get_library_dir()} {c_library.get_cmake_dir()}"
    )
    assert output(sys.executable, "-c", program, cwd=tmp_path) == expected + "\n"
