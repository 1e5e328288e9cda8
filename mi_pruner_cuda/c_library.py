"""Where this installation's C and C++ library is: headers, libmipruner and its CMake package."""

from pathlib import Path

__all__ = ["get_cmake_dir", "get_include", "get_library_dir"]


def get_include() -> str:
    """The folder for the compiler's -I, which holds mipruner/mipruner.h."""
    return _folder("include")


def get_library_dir() -> str:
    """The folder for the linker's -L: libmipruner.so, libmipruner.a, pkgconfig/mipruner.pc, and
    libmipruner_cuda.so where the package was built with CUDA."""
    return _folder("lib")


def get_cmake_dir() -> str:
    """The folder of mipruner-config.cmake, for CMake's mipruner_DIR."""
    return _folder("lib/cmake/mipruner")


def _folder(below: str) -> str:
    folder = Path(__file__).resolve().parent / "native" / below
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: this copy of mi_pruner_cuda has no C library. It comes with "
            "every installation by pip; `pip install -e .` puts it into a source tree"
        )
    return str(folder)
