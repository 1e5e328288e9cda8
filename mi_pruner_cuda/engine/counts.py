"""How many rows stay of each image, before anything is encoded. Free of torch."""

from collections.abc import Sequence

from .. import _checks
from ..budget import Mass, resolve


def keep_counts(sizes: Sequence[int], keep) -> list[int]:
    """Rows that each image keeps; with a video's frames as the images, each frame.

    Args:
        sizes: rows of each image, after the projector.
        keep: a ratio in (0, 1] (keep_count) or a count >= 1 for every image, or a sequence of them,
            one per image. An image of 0 rows keeps 0, one of fewer rows than the count keeps all.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes: got {type(sizes).__name__}, allowed is a sequence of integers")
    for i, size in enumerate(sizes):
        if not _checks.is_integer(size):
            raise TypeError(f"sizes[{i}]: got {size!r}, allowed is an integer >= 0")
        if size < 0:
            raise ValueError(f"sizes[{i}]: got {size}, allowed is an integer >= 0")
    one_each = isinstance(keep, Sequence) and not isinstance(keep, str)
    for value in keep if one_each else [keep]:
        _check(value)
    keeps = keep if one_each else [keep] * len(sizes)
    if len(keeps) != len(sizes):
        raise ValueError(
            f"keep: got {len(keeps)} values, allowed is one, or one for each of {len(sizes)} images"
        )
    return [resolve(value, int(size)) for value, size in zip(keeps, sizes, strict=True)]


def _check(keep) -> None:
    if isinstance(keep, Mass):
        raise TypeError(
            f"keep: got {keep!r}, allowed is a ratio in (0, 1] or a count >= 1: the count of a "
            "Mass is not known before the rows are"
        )
    resolve(keep, 1)
