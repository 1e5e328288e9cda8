"""What a selection has to say about itself, in words. Free of torch."""

from .budget import Mass


def reason_for(keep, k: int, n: int, words: int, estimator: str, kept: int, not_finite: int) -> str:
    """Of one item.

    Args:
        keep: as it was asked for; k: the count that this came to.
        n: rows that are not masked.
        words: text rows that count, neither masked nor holding NaN or Inf.
        estimator: of the scores.
        kept: rows that are kept; not_finite: those of them that hold NaN or Inf.
    """
    if n == 0:
        return "there are no rows to keep"
    notes = []
    if k >= n:
        asked_for = k if isinstance(keep, (float, Mass)) else keep
        notes.append(f"kept all: {asked_for} of {n} asked for")
    if words == 0:
        notes.append("no text: selected by what rows share")
    if words == 1 and estimator == "specific":
        notes.append("one text token: scored by pointwise information")
    if isinstance(keep, Mass):
        notes.append(f"{k} rows hold {keep.share:g} of the relevance")
    if not_finite:
        notes.append(not_finite_note(not_finite, kept))
    return "; ".join(notes) or "selected"


def not_finite_note(not_finite: int, kept: int) -> str:
    """About rows that were kept although nothing could be said about them."""
    return f"{not_finite} of {kept} kept rows hold NaN or Inf"


def is_not_finite_note(note: str) -> bool:
    return note.endswith(" kept rows hold NaN or Inf")


def reason_for_batch(reasons: list[str]) -> str:
    """The items' reasons in one: once where all have the same, else with the items that have it."""
    items: dict[str, list[int]] = {}
    for item, reason in enumerate(reasons):
        items.setdefault(reason, []).append(item)
    if len(items) < 2:
        return next(iter(items), "the batch is empty")
    return "; ".join(f"{items_in_words(own)}: {reason}" for reason, own in items.items())


def items_in_words(items: list[int]) -> str:
    return f"item{'s' if len(items) > 1 else ''} {', '.join(map(str, items))}"
