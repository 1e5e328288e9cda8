"""Arguments from text. What raises here is told by argparse, with the argument's name."""

import argparse
import math
import os

from ..budget import Mass


def keep(text: str) -> int | float | Mass:
    """An integer is a count ("1" is one token), with a point a ratio ("1.0" is all), or mass:0.9.

    Raises:
        argparse.ArgumentTypeError.
    """
    try:
        if text.startswith("mass:"):
            return Mass(float(text[len("mass:") :]))
        value = float(text) if set(text) & set(".eE") else int(text)
    except ValueError:
        value = math.nan
    if not (value >= 1 if isinstance(value, int) else 0 < value <= 1):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed is a ratio in (0, 1] with a point, a count >= 1 without, or "
            "mass:SHARE"
        )
    return value


def positive(text: str) -> float:
    """A finite number > 0."""
    return _number(text, lambda value: value > 0, "a number > 0")


def not_negative(text: str) -> float:
    """A finite number >= 0."""
    return _number(text, lambda value: value >= 0, "a number >= 0")


def share(text: str) -> float:
    """A number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def count(text: str) -> int:
    """An integer >= 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed is an integer >= 1")
    return value


def counts_from_0(text: str) -> tuple[int, ...]:
    """Integers >= 0 with commas between them."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = (-1,)
    if min(values) < 0:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed are integers >= 0 with commas between them"
        )
    return values


def words(text: str) -> str:
    """A text that is not empty.

    Bytes that the locale cannot read, as those of an accent where it is C, stand in an argument as
    halves of surrogate pairs. They are read as UTF-8.
    """
    text = _characters(text).strip()
    if not text:
        raise argparse.ArgumentTypeError("got an empty text, allowed is a question")
    return text


def file(text: str) -> str:
    """A path; whether it is of any use is seen later."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty text, allowed is the path of a file")
    return text


def _characters(text: str) -> str:
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    got = text
    try:
        got = os.fsencode(text)
        return got.decode()
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"got {got!r}, allowed is text in UTF-8") from error


def _number(text: str, holds, allowed: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and holds(value)):
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed is {allowed}")
    return value
