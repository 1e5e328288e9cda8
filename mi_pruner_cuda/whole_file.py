"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil

from .output_path import unwritable

# The folder takes no further file, or the file is one that is mounted by itself.
_IN_PLACE_ONLY = (errno.EACCES, errno.EPERM, errno.EBUSY)


def write_file(path, data: bytes) -> None:
    """The file has all of data or, after an error, what it had before.

    The data goes to a file beside it, which then takes its place. A link is followed. Written in
    place, without that promise: what is no plain file (a device, a pipe), and a file in a folder
    that takes no others.

    Raises:
        OSError: the path cannot be written; names it.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            _write(path, data)
        else:
            _replace(os.path.realpath(path), data)
    except OSError as error:
        raise unwritable(path, error) from error


def _replace(target: str, data: bytes) -> None:
    beside = os.path.join(os.path.dirname(target), f".mipruner-{secrets.token_hex(8)}")
    try:
        with _removed_on_error(beside):
            with open(beside, "xb") as file:  # a new one, with the rights that the umask leaves
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if os.path.exists(target):
                shutil.copymode(target, beside)
            os.replace(beside, target)
    except OSError as error:
        if error.errno not in _IN_PLACE_ONLY or not os.path.exists(target):
            raise
        _write(target, data)


@contextlib.contextmanager
def _removed_on_error(path: str):
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _write(path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
