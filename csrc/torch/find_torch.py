"""Finds the torch package without importing it. Prints "<folder>;<version>" or ";<reason>".

Under an isolated pip build, torch cannot be imported: site-packages is off the module path. The
folder is still where sysconfig says, because pip runs the build with the interpreter that will use
the result. Tools that isolate by making another virtual environment leave less to go by: build
leaves VIRTUAL_ENV, uv the PATH of an active environment or the .venv that it works on unasked.
A wrong guess does no harm: every torch from 2.11 on has the headers that make the same binary.
"""

import importlib.util
import os
import re
import sys
import sysconfig
from pathlib import Path

OLDEST = (2, 11)


def candidates():
    """Folders that may hold the torch package, likeliest first."""
    for key in ("purelib", "platlib"):
        yield Path(sysconfig.get_path(key)) / "torch"
    for base in environments():
        # Of this Python version: others may be there, for another purpose.
        yield Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(base)})) / "torch"
    spec = importlib.util.find_spec("torch")  # user site, PYTHONPATH, distribution packages
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent


def environments():
    """The environments that may be waiting for the result, likeliest first."""
    if "VIRTUAL_ENV" in os.environ:
        yield Path(os.environ["VIRTUAL_ENV"])
    yield from (Path(folder).parent for folder in os.get_exec_path() if folder.endswith("/bin"))
    here = Path(os.environ.get("PWD") or os.getcwd())  # the user's shell was there
    yield from (folder / ".venv" for folder in (here, *here.parents))


def version_of(folder: Path) -> str | None:
    """The version that a torch folder states, or None if it holds no torch."""
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        return None
    match = re.search(r"__version__ = '([^']+)'", text)
    return match.group(1) if match else None


def judge(folder: Path) -> str:
    """The answer for one folder that holds a torch."""
    version = version_of(folder)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f";torch {version} in {folder} is older than 2.11"
    if not (folder / "include/torch/csrc/stable/library.h").is_file():
        return f";torch {version} in {folder} has no C++ headers"
    return f"{folder};{version}"


def main(given: str):
    if given:
        if version_of(Path(given)) is None:
            return f";{given} is no torch package folder: it has no version.py"
        return judge(Path(given))
    for folder in candidates():
        if version_of(folder) is not None:
            return judge(folder)
    return f";no torch was found for {sys.executable}"


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else ""))
