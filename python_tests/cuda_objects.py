"""The kernels as nvcc has compiled them, for tests that look at the machine code.

The objects of the package's own build are brought up to date and used, when it has kernels and
treats warnings as errors; otherwise they are built in build/cuda. Either way one compilation serves
all tests, and CMake compiles only what changed.
"""

import functools
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cmake import CMAKE_BIN_DIR
from sharing import alone

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from kernel_table import kernel_name

ROOT = Path(__file__).resolve().parents[1]
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
PACKAGE_BUILD = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
OWN_BUILD = ROOT / "build" / "cuda"
CMAKE = Path(CMAKE_BIN_DIR) / "cmake"
NVCC = shutil.which("nvcc")


def _run(*command, cwd=None):
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def _output(*command, cwd=None):
    done = _run(*command, cwd=cwd)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _compile(folder):
    return _run(CMAKE, "--build", folder, "--target", "mipruner_cuda", "--parallel", 2)


@functools.cache
def build_folder():
    """A build folder whose kernel objects are up to date."""
    # The lock that setup.py has too: pip configures the package's folder anew.
    with alone(ROOT / "build/.lock"):
        return _up_to_date()


def _up_to_date():
    cache = PACKAGE_BUILD / "CMakeCache.txt"
    usable = cache.is_file() and "MIPRUNER_WERROR:BOOL=ON" in cache.read_text()
    # A build in an environment that pip has removed since can fail where an own one does not.
    if usable and _compile(PACKAGE_BUILD).returncode == 0:
        folder = PACKAGE_BUILD
    else:
        folder = OWN_BUILD
        _output(
            CMAKE, "-S", ROOT, "-B", folder, "-DMIPRUNER_CUDA=ON", "-DMIPRUNER_TORCH=OFF",
            "-DMIPRUNER_PYTHON_MODULE=OFF", "-DMIPRUNER_WERROR=ON",
        )  # fmt: skip
        done = _compile(folder)
        if done.returncode != 0:
            raise RuntimeError(f"compiling the kernels:\n{done.stdout}\n{done.stderr}")
    return folder


def object_of(source):
    return build_folder() / "CMakeFiles/mipruner_cuda.dir/csrc/cuda" / f"{source.name}.o"


def find_tool(name):
    """A disassembler of the toolkit's, or the one that pip installs with the tests' packages."""
    beside = [str(Path(NVCC).resolve().parent)] if NVCC else []
    installed = [str(p) for p in Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin")]
    for folder in (*beside, None, *installed):
        found = shutil.which(name, path=folder)
        if found:
            return found
    raise FileNotFoundError(f"{name}: `pip install nvidia-cuda-{name}`, or the CUDA toolkit's")


@dataclass(frozen=True)
class Kernel:
    """One kernel, for one element type, on one architecture."""

    source: str
    name: str  # without namespaces, such as product_kernel<BFloat16>
    architecture: int
    registers: int
    stack: int
    local: int


@functools.cache
def kernels():
    """Every kernel on every architecture, with what it takes."""
    found = []
    cuobjdump = find_tool("cuobjdump")
    for source in KERNELS:
        listing = _output(cuobjdump, "-res-usage", object_of(source))
        architecture = None
        for line in listing.splitlines():
            if match := re.match(r"arch = sm_(\d+)", line):
                architecture = int(match.group(1))
            elif match := re.match(r"\s*Function (\w+):", line):
                function = match.group(1)
            elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
                numbers = [int(number) for number in match.groups()]
                found.append(Kernel(source.name, kernel_name(function), architecture, *numbers))
    return found


def ptx_architectures(source):
    listing = _output(find_tool("cuobjdump"), "-lptx", object_of(source))
    return {int(number) for number in re.findall(r"\.sm_(\d+)\.ptx", listing)}


def instructions(source, folder):
    """{(kernel, architecture): Counter of its instructions} of one source file."""
    folder.mkdir(parents=True, exist_ok=True)
    _output(find_tool("cuobjdump"), "-xelf", "all", object_of(source), cwd=folder)
    counts = {}
    for cubin in folder.glob("*.cubin"):
        architecture = int(re.search(r"sm_(\d+)", cubin.name).group(1))
        kernel = None
        for line in _output(find_tool("nvdisasm"), "-c", cubin).splitlines():
            if match := re.match(r"\.text\.(\w+):", line):
                kernel = counts.setdefault((kernel_name(match.group(1)), architecture), Counter())
            elif match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z0-9]+)", line):
                kernel[match.group(1)] += 1
    return counts
