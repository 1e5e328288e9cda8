"""What several processes share: the workers of one test run, and builds beside it."""

import fcntl
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(lock: Path):
    """Runs the body while no other process is in one with the same lock file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets the next one in


def made_once(folder: Path, make) -> Path:
    """The folder, which make(folder) has filled for the first process that asked; others wait."""
    made = folder.with_name(f"{folder.name}.made")
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a make that failed has left
            folder.mkdir(parents=True)
            make(folder)
            made.touch()
    return folder
