"""What the tests of builds share: programs to run, and binaries to look into."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import mi_pruner_cuda

SOURCE = Path(__file__).resolve().parent.parent
PACKAGE = Path(mi_pruner_cuda.__file__).resolve().parent
# Libraries of the C world. libpthread, libdl and librt: parts of libc where glibc is younger; the
# CUDA runtime, linked into ours, needs them where it is older.
C_LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
C_LIBRARIES |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def run(*command, **options):
    """Runs a command and returns the finished process; its output is text."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )


def output(*command, **options):
    """What a command printed, which must not fail."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(name):
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found is not None, f"{name} is not installed: it comes with the compiler or `make test`"
    return found


def require(found, package):
    """Skips the test where a system package is not installed; on CI, where all are, fails it.

    Skipped elsewhere because only root on Debian gets them installed (.ci/system-tools): everybody
    else can still run all other tests.
    """
    if not found:
        message = f"{package} is not installed: apt-get install {package}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


def environment(**changes):
    """This process's environment without the build's own options, plus changes."""
    own = ("MIPRUNER_", "CMAKE_ARGS", "CUDAARCHS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    return {**kept, **{k: str(v) for k, v in changes.items()}}


def dynamic_section(file):
    """The libraries that a binary needs, its soname or None, and the paths that it looks in."""
    listing = output(tool("readelf"), "--dynamic", "--wide", file)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", listing))
    (soname,) = re.findall(r"\(SONAME\).*\[(.*?)\]", listing) or [None]
    return needed, soname, re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*?)\]", listing)


def symbols(file, *options):
    """Names in the dynamic symbol table."""
    listing = output(tool("nm"), "--dynamic", "--format=posix", *options, file)
    return {line.split()[0].split("@")[0] for line in listing.splitlines()}
