"""Standard output and standard error, which may take less than they are given: no characters that
their encoding lacks, or nothing more, as the disk is full or the reader of a pipe has left."""

import contextlib
import os
import sys


class OutputLost(Exception):
    """Standard output could not be written.

    closed: the reader of a pipe has left, which is its good right.
    """

    def __init__(self, error: OSError):
        super().__init__(f"standard output cannot be written: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


@contextlib.contextmanager
def escaping():
    """What a stream cannot encode is printed by its number (\\xe9), as on standard error."""
    streams = [s for s in (sys.stdout, sys.stderr) if hasattr(s, "reconfigure") and not s.closed]
    before = [stream.errors for stream in streams]
    try:
        for stream in streams:
            _set_errors(stream, "backslashreplace")
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            _set_errors(stream, errors)


def _set_errors(stream, errors: str) -> None:
    with contextlib.suppress(OSError):  # it flushes first
        stream.reconfigure(errors=errors)


def say(text: str) -> None:
    """A line on standard output.

    Raises:
        OutputLost.
    """
    try:
        print(text)
    except OSError as error:
        raise OutputLost(error) from error


def flush() -> None:
    """Raises OutputLost: what was said did not get out."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise OutputLost(error) from error


def complain(text: str) -> None:
    """A line on standard error, if anybody listens."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream) -> None:
    """Drops what a stream did not take: at its end Python would try it again, and say so."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # no stream of the system's
        return
    kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        with contextlib.suppress(OSError):
            stream.flush()
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)
