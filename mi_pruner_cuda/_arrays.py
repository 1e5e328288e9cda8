"""NumPy arrays that say more than their numbers (a mask, a unit, a byte order): what they say is
honoured or refused, never dropped. Free of torch."""

import numpy as np

# Other ways to hold, index or print the same numbers.
_SAY_NO_MORE = (np.ndarray, np.memmap, np.matrix, np.recarray)


def plain(name: str, x) -> np.ndarray:
    """x as a numpy.ndarray of no subclass, without a copy.

    Raises:
        TypeError: no array, or of a subclass that may say more.
        ValueError: elements are masked.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: got {type(x).__name__}, allowed is a numpy.ndarray")
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.getmask(x) is not np.ma.nomask and (hidden := _masked(x)):
            raise ValueError(
                f"{name}: got a masked array with {hidden} masked elements, allowed is one with "
                f"none{_HINTS.get(name, '')}"
            )
        return plain(name, x.data)
    if type(x) not in _SAY_NO_MORE:
        raise TypeError(
            f"{name}: got {type(x).__name__}, a subclass of numpy.ndarray that may say more than "
            f"its numbers (a unit, a mask), allowed is a numpy.ndarray: numpy.asarray makes one"
        )
    return x.view(np.ndarray)


_HINTS = {
    rows: f": {rows}_mask says which rows count, and {rows}.data are the numbers"
    for rows in ("visual", "text")
}


def _masked(x: np.ma.MaskedArray) -> int:
    mask = np.ma.getmaskarray(x)
    return int(np.count_nonzero(mask.view(bool) if mask.dtype.names else mask))


def integers(name: str, given) -> np.ndarray:
    """int64, a copy: of an array of integers of any width and byte order, or of what NumPy makes
    one of, such as a list.

    Raises:
        TypeError: other elements, True and False among them.
        ValueError: elements are masked.
    """
    array = plain(name, given) if isinstance(given, np.ndarray) else _array_of(name, given)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: got {array.dtype} elements, allowed are integer indices")
    if array.dtype.kind == "u" and (array > np.iinfo(np.int64).max).any():
        raise ValueError(f"{name}: got {array.max()}, allowed are numbers that int64 holds")
    return array.astype(np.int64)


def _array_of(name: str, given) -> np.ndarray:
    try:
        # One by one, as NumPy reads [2, True] as [2, 1], and a masked element as NaN.
        for value in np.asarray(given, dtype=object).ravel():
            if isinstance(value, (bool, np.bool_)) or value is np.ma.masked:
                raise TypeError(f"{value!r} is no integer")
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: got {type(given).__name__} of which NumPy makes no integers ({error}), "
            "allowed are integer indices"
        ) from None
