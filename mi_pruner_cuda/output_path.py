"""Where pictures and pages are written to, checked before anything is computed for them."""

import os


def check_output(path, endings) -> None:
    """Refuses a path that cannot become a file of these endings.

    Args:
        path: what the caller gave.
        endings: the allowed ones, without the dot, in lower case.

    Raises:
        TypeError: no path.
        ValueError: no file ending, or one that is not allowed.
        OSError: a folder, or no folder to put it in, or no right to.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {type(path).__name__}, allowed is a path")
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending[1:] not in endings:
        raise ValueError(f"path: got {path!r}, allowed endings are .{', .'.join(endings)}")
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"path: {path} is a folder, allowed is a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: there is no folder {folder}")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise PermissionError(f"path: {path} cannot be written")


def check_text(name: str, text) -> None:
    """Refuses what is neither None nor a text."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{name}: got {type(text).__name__}, allowed is a text")


def unwritable(path, error: OSError) -> OSError:
    """The same error, with a sentence that names the file."""
    return type(error)(f"path: {path} cannot be written: {error.strerror or error}")
