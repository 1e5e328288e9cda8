"""Builds the native parts by driving CMake. All metadata is in pyproject.toml.

These are the extension modules and, for C and C++ hosts, libmipruner: what `cmake --install` makes
of it is the folder mi_pruner_cuda/native, whose parts mi_pruner_cuda/c_library.py names.

Options, as environment variables: MIPRUNER_CUDA and MIPRUNER_TORCH (AUTO, ON, OFF),
MIPRUNER_TORCH_DIR, MIPRUNER_WERROR (ON, OFF), CMAKE_ARGS for anything else, and
MIPRUNER_BUILD_DIR, where CMake is to build: several Pythons may share one folder, which compiles
all but the module itself once.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).resolve().parent
PACKAGE = "mi_pruner_cuda"
LIBRARY = Path(PACKAGE) / "native"
# Always passed, with the default when unset: a CMake cache would remember the last build's choice.
OPTIONS = {
    "MIPRUNER_CUDA": "AUTO",
    "MIPRUNER_TORCH": "AUTO",
    "MIPRUNER_TORCH_DIR": "",
    "MIPRUNER_WERROR": "OFF",
}
# Whatever CMAKE_ARGS says: mi_pruner_cuda/c_library.py relies on the layout, and all of the package
# on the module.
FIXED = {
    "MIPRUNER_PYTHON_MODULE": "ON",
    "MIPRUNER_INSTALL": "ON",
    "CMAKE_INSTALL_LIBDIR": "lib",
    "CMAKE_INSTALL_INCLUDEDIR": "include",
}


def find_tool(name: str) -> str | None:
    """A program installed with this Python, else one on the PATH."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


def without_links(folder: Path):
    """Replaces the symbolic links to shared libraries, which wheels cannot hold, by text files that
    linkers read to the same end; Apple's linker reads none, and gets a copy."""
    for link in [file for file in folder.rglob("*") if file.is_symlink()]:
        library = link.readlink()
        link.unlink()
        if sys.platform == "darwin":
            shutil.copy2(folder / link.parent / library, link)
        else:
            link.write_text(f"INPUT({library})\n")


@contextlib.contextmanager
def alone_in(folder: Path):
    """Waits until no other process is in here with the same folder.

    setuptools and CMake both write into the build folder of the source tree: of two builds of one
    tree at once (two pips, a pip and a make), the second would find half of the first's files.
    """
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"mi_pruner_cuda: waiting for the other build in {folder}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file lets the next one in


class CMakeBuild(build_ext):
    """Each extension is a CMake target of the same name."""

    def get_ext_filename(self, fullname: str) -> str:
        # `_ops` is no Python module but a library that torch loads: no Python ABI in its name.
        # Overridden here, because editable installs ask this function for the name too.
        *parents, name = fullname.split(".")
        if name == "_ops":
            return os.path.join(*parents, "_ops.so")
        return super().get_ext_filename(fullname)

    def build_extensions(self):
        self.configure()
        # Without torch there is no `_ops`. Dropping it here keeps it out of every list made later,
        # and one from an earlier build with torch must not slip into this one.
        for extension in [e for e in self.extensions if not self.has_target(e)]:
            self.extensions.remove(extension)
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        super().build_extensions()
        self.install_library(Path(self.build_lib) / LIBRARY)

    def copy_extensions_to_source(self):
        # Called for editable installs only.
        if not any(e.name.endswith("._ops") for e in self.extensions):
            (SOURCE / PACKAGE / "_ops.so").unlink(missing_ok=True)
        super().copy_extensions_to_source()
        shutil.rmtree(SOURCE / LIBRARY, ignore_errors=True)
        shutil.copytree(Path(self.build_lib) / LIBRARY, SOURCE / LIBRARY)

    def configure(self):
        cmake = find_tool("cmake")
        if cmake is None:
            sys.exit("mi_pruner_cuda: building needs CMake; `pip install cmake ninja`")
        self.cmake = cmake
        # One folder for all kinds of install, so that the second build of a source tree is short.
        default = SOURCE / "build" / f"cmake-{sys.implementation.cache_tag}"
        build = Path(os.environ.get("MIPRUNER_BUILD_DIR") or default).resolve()
        build.mkdir(parents=True, exist_ok=True)
        self.cmake_build = str(build)
        # The cache would keep paths into the last isolated build's environment, which is gone.
        # Objects stay.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        command = [cmake, "-S", str(SOURCE), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
        command.append(f"-DMIPRUNER_PYTHON={sys.executable}")
        ninja = find_tool("ninja")
        if ninja is not None:
            command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        for name, default in OPTIONS.items():
            command.append(f"-D{name}={os.environ.get(name, default)}")
        command += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        command += [f"-D{name}={value}" for name, value in FIXED.items()]
        subprocess.run(command, check=True)

    def has_target(self, extension: Extension) -> bool:
        if not extension.optional:
            return True
        targets = subprocess.run(
            [self.cmake, "--build", self.cmake_build, "--target", "help"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return extension.name.split(".")[-1] in targets.replace(":", " ").split()

    def build_extension(self, extension: Extension):
        self.build_target(extension.name.split(".")[-1])
        destination = Path(self.get_ext_fullpath(extension.name))
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(self.cmake_build) / destination.name, destination)

    def install_library(self, prefix: Path):
        self.build_target("mipruner_all_libraries")
        shutil.rmtree(prefix, ignore_errors=True)  # an earlier build may have had CUDA
        command = [self.cmake, "--install", self.cmake_build, "--component", "libraries"]
        command += ["--prefix", str(prefix.resolve())]
        # Packagers' DESTDIR is about where the wheel goes.
        env = {name: value for name, value in os.environ.items() if name != "DESTDIR"}
        subprocess.run(command, check=True, env=env)
        without_links(prefix)

    def build_target(self, target: str):
        command = [self.cmake, "--build", self.cmake_build, "--target", target, "--parallel"]
        subprocess.run(command, check=True)


# Source distributions hold what an extension depends on; so no manifest has to list it.
depends = ["CMakeLists.txt", "CHANGELOG.md", "CITATION.cff"]
depends += [str(f.relative_to(SOURCE)) for f in (SOURCE / "csrc").rglob("*") if f.is_file()]

with alone_in(SOURCE / "build"):
    setup(
        ext_modules=[
            Extension(f"{PACKAGE}._C", sources=[], depends=depends),
            Extension(f"{PACKAGE}._ops", sources=[], optional=True),
        ],
        cmdclass={"build_ext": CMakeBuild},
    )
