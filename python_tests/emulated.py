"""The CUDA kernels without a GPU: `_C` built against the emulator, for every operation's tests, and
libmipruner_cuda for those of the C interface.

The build (a second one beside the installed package's, in build/emulated) is brought up to date
when a test session starts; CMake compiles only what changed.
"""

import functools
import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

from cmake import CMAKE_BIN_DIR
from sharing import alone

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "emulated"


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"building the emulated kernels:\n{done.stdout}\n{done.stderr}")


@functools.cache
def _configure():
    cmake = Path(CMAKE_BIN_DIR) / "cmake"
    _run(
        cmake, "-S", ROOT, "-B", FOLDER, "-DMIPRUNER_CUDA=EMULATED", "-DMIPRUNER_TORCH=OFF",
        "-DMIPRUNER_WERROR=ON", f"-DMIPRUNER_PYTHON={sys.executable}",
    )  # fmt: skip
    return cmake


def _build(target):
    with alone(FOLDER.with_name("emulated.lock")):
        _run(_configure(), "--build", FOLDER, "--target", target, "--parallel", 2)


@functools.cache
def module():
    """`_C` whose arrays count as memory of a CUDA device, which is emulated."""
    _build("_C")
    (file,) = FOLDER.glob("_C.*.so")
    loader = importlib.machinery.ExtensionFileLoader("_C", str(file))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader("_C", loader))
    loader.exec_module(loaded)
    return loaded


@functools.cache
def library():
    """The path of libmipruner_cuda whose device is emulated: all its memory is the processor's."""
    _build("mipruner_with_cuda")
    return next(FOLDER.glob("libmipruner_cuda.so.*"))
