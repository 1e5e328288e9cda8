"""Where files are written to, checked before anything is computed for them."""

import os


def check_output(path, endings=None) -> None:
    """Refuses a path that cannot become a file of these endings.

    Args:
        path: what the caller gave.
        endings: the allowed ones, without the dot, in lower case; None allows any.

    Raises:
        TypeError: no path.
        ValueError: no file ending, or one that is not allowed.
        OSError: a folder, or no folder to put it in, or no right to.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {type(path).__name__}, allowed is a path")
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if endings is not None and ending[1:] not in endings:
        raise ValueError(f"path: got {path!r}, allowed endings are .{', .'.join(endings)}")
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"path: {path} is a folder, allowed is a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: there is no folder {folder}")
    if os.path.islink(path) and not os.path.exists(path):  # the file comes where the link points to
        folder = os.path.dirname(os.path.realpath(path))
    try:
        os.stat(path)
    except FileNotFoundError:
        path_or_folder = folder
    except OSError as error:  # a name that is too long, links in a circle
        raise unwritable(path, error) from error
    else:
        path_or_folder = path
    if not os.access(path_or_folder, os.W_OK):
        raise PermissionError(f"path: {path} cannot be written")


def check_not_read(path, read) -> None:
    """Refuses to write onto a file that is read.

    Args:
        path: of the output.
        read: paths, Pillow images (each knows the file that it was opened from), and lists of
            them; what is neither has no file.

    Raises:
        ValueError.
    """
    if isinstance(read, (list, tuple)):
        for one in read:
            check_not_read(path, one)
        return
    file = read if isinstance(read, (str, os.PathLike)) else getattr(read, "filename", None)
    if isinstance(file, (str, os.PathLike)) and file and same_file(path, file):
        raise ValueError(f"path: {path} is a picture that is read, allowed is another file")


def same_file(one, other) -> bool:
    """Whether writing to one path changes the plain file at the other.

    Links of both kinds and other spellings count, and so they do before there is a file.
    """
    if os.path.exists(one) and os.path.exists(other):
        return os.path.isfile(one) and os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def check_text(name: str, text) -> None:
    """Refuses what is neither None nor a text."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{name}: got {type(text).__name__}, allowed is a text")


def unwritable(path, error: OSError) -> OSError:
    """The same error, with a sentence that names the file."""
    return type(error)(f"path: {path} cannot be written: {error.strerror or error}")
