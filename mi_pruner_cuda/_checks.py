"""Checks of plain arguments, shared by the doors. Free of torch.

`also` names the types that count as numbers besides Python's and NumPy's: torch's symbolic ones,
while a graph is traced.
"""

import operator
from numbers import Integral, Real

ESTIMATORS = ("specific", "posterior", "joint", "cosine")

# The core computes in float32, where a smaller number has no finite reciprocal.
_LEAST, _MOST = 1e-38, 3e38
_LARGEST_COUNT = 2**63 - 1  # what the core's 64 bits hold


def is_number(value, also: tuple = ()) -> bool:
    """A real number; True and False are none."""
    return isinstance(value, also) or (isinstance(value, Real) and _is_plain(value))


def is_integer(value, also: tuple = ()) -> bool:
    return isinstance(value, also) or (isinstance(value, Integral) and _is_plain(value))


def _is_plain(value) -> bool:
    # NumPy counts a span of time, whose unit nobody here would look at, among the integers.
    return not isinstance(value, bool) and type(value).__name__ != "timedelta64"


def _number(name, value, least, allowed, also, most=_MOST):
    if not is_number(value, also):
        raise TypeError(f"{name}: got {value!r}, allowed is {allowed}")
    if not least <= value <= most:  # NaN fails too
        raise ValueError(f"{name}: got {value}, allowed is {allowed}")


def positive(name: str, value, also: tuple = ()) -> None:
    _number(name, value, _LEAST, "a finite number > 0", also)


def temperature(value, also: tuple = ()) -> None:
    # Cosines are divided by it: the lower bound keeps the quotients finite in float32.
    _number("temperature", value, 1e-20, "a finite number > 0 (at least 1e-20)", also)


def not_negative(name: str, value, also: tuple = ()) -> None:
    _number(name, value, 0.0, "a finite number >= 0", also)


def share(name: str, value, also: tuple = ()) -> None:
    _number(name, value, 0.0, "[0, 1]", also, most=1.0)


def count(name: str, value, also: tuple = ()):
    """The value as an int; values of the types in `also` unchanged."""
    if not is_integer(value, also):
        raise TypeError(f"{name}: got {value!r}, allowed is an integer >= 1")
    if value < 1:
        raise ValueError(f"{name}: got {value}, allowed is an integer >= 1")
    # NumPy's integers become Python's; asking a symbolic one for its index would fix its value.
    value = value if isinstance(value, (int, *also)) else operator.index(value)
    return value if value <= _LARGEST_COUNT else _LARGEST_COUNT


def estimator(value) -> None:
    if not isinstance(value, str) or value not in ESTIMATORS:
        raise ValueError(f"estimator: got {value!r}, allowed are {', '.join(ESTIMATORS)}")
