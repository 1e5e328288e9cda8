"""What is noted on a key-value cache, and how the note follows the cache.

A cache's rows can be reordered, selected, repeated, copied and built again from their tensors, by
the cache's own methods or by anybody. The note sees none of that happen. It knows its rows instead,
by the keys of the pruned columns: where the cache's keys are another tensor than the one that this
pruner's last forward left, each row is looked up by its bits among the rows that were noted.
"""

import weakref
from collections import deque
from dataclasses import dataclass, replace

import torch

from .columns import CacheState
from .fingerprint import of_rows, version
from .report import Report

_NOTE = "_mipruner_state"  # on the cache, so that it is copied, kept and forgotten with it
# Columns before the last pruned one that rows are told apart by. They are taken from a layer where
# each depends on all columns before it.
_COLUMNS = 256
# Prefills whose rows are known again in a cache that has no note.
_MOST_RECENT = 256


@dataclass(frozen=True)
class KeyRows:
    """The rows of a pruned cache, told apart by their keys.

    layer: whose keys.
    column: the last pruned one, physical; None where layers have windows, which it leaves: then
        the last columns tell, after each forward anew.
    numbers: int64 (B).
    """

    layer: int
    column: int | None
    numbers: torch.Tensor

    def places(self, cache) -> torch.Tensor | None:
        """int64 (B'): which of these rows each row of a cache is, -1 for none of them.

        None where it cannot be said: the cache has no such columns, or they have left its window.
        """
        return self.places_of(_numbers(cache, self.layer, self.column))

    def places_of(self, found: torch.Tensor | None) -> torch.Tensor | None:
        """The same for numbers that were worked out before."""
        if found is None:
            return None
        same = found.to(self.numbers.device)[:, None] == self.numbers
        return torch.where(same.any(1), same.to(torch.uint8).argmax(1), -1)


@dataclass(frozen=True)
class Note:
    """state: None for a cache without pruned columns.

    rows: None where its rows cannot be told apart by keys.
    report: what the prefill that pruned it kept, of all its items, also where rows went since.
    mark: None on a copy.
    """

    state: CacheState | None
    rows: KeyRows | None = None
    report: Report | None = None
    mark: "_Mark | None" = None


class _Mark:
    """Which keys a cache held when a pruner last looked. Copies of the cache have no mark."""

    def __init__(self, owner: "CacheNotes", cache):
        keys = _keys(cache)
        self._owner = weakref.ref(owner)
        self._keys = None if keys is None else weakref.ref(keys)
        self._version = None if keys is None else version(keys)

    def fits(self, owner: "CacheNotes", cache) -> bool:
        """Whether nothing but this pruner's forwards has changed the cache since."""
        if self._owner() is not owner or self._keys is None:
            return False
        keys = self._keys()
        return keys is not None and keys is _keys(cache) and version(keys) == self._version

    def __deepcopy__(self, memo) -> None:
        return None

    def __reduce__(self):
        return type(None), ()


def state_of(cache) -> CacheState | None:
    """What is noted of pruned columns; None for nothing."""
    note = getattr(cache, _NOTE, None)
    return None if note is None else note.state


def replace_state(cache, state: CacheState | None) -> None:
    """Notes another state of the same rows; None where the cache was emptied."""
    note = getattr(cache, _NOTE, None)
    if state is None:
        if note is not None:
            delattr(cache, _NOTE)
    else:
        setattr(cache, _NOTE, replace(note or Note(state), state=state))


class CacheNotes:
    """One pruner's notes."""

    def __init__(self):
        self._recent: deque[Note] = deque(maxlen=_MOST_RECENT)

    def write(self, cache, state: CacheState, report: Report) -> None:
        """After a prefill that pruned: notes on the cache what it holds."""
        rows = _rows_of(cache, state.width - 1 - state.guessed)
        note = Note(state, rows, report)
        if rows is not None and rows.column is not None:
            self._recent.append(note)
        setattr(cache, _NOTE, replace(note, mark=_Mark(self, cache)))

    def mark(self, cache) -> None:
        """After any other forward: what the cache holds now is what this pruner left in it."""
        note = getattr(cache, _NOTE, None) or Note(None)
        if note.rows is not None and note.rows.column is None:
            note = replace(note, rows=_rows_by_window(cache))
        setattr(cache, _NOTE, replace(note, mark=_Mark(self, cache)))

    def follow(self, cache, length: int) -> Report | None:
        """Before a forward: puts the note right where the cache has changed since.

        Args:
            cache: a transformers Cache or None.
            length: its columns.

        Returns:
            What the prefill that pruned it kept; None for a cache without pruned columns.

        Raises:
            ValueError: rows of a pruned cache have become unknown.
        """
        if cache is None or length == 0:
            return None
        note = getattr(cache, _NOTE, None)
        if note is None or note.mark is None or not note.mark.fits(self, cache):
            note = self._found(cache, note)
            setattr(cache, _NOTE, replace(note, mark=_Mark(self, cache)))
        return note.report

    def _found(self, cache, note: Note | None) -> Note:
        """The right note for a cache that something else has touched."""
        if note is None:
            return self._look_up(cache) or Note(None)
        if note.state is None:
            return note
        places = None if note.rows is None else note.rows.places(cache)
        if places is not None and bool((places >= 0).all()):
            return _taken(note, places)
        if places is None or note.rows.column is None:
            return _whatever_the_order(cache, note)
        known = self._look_up(cache)
        if known is None:
            raise ValueError(
                "past_key_values: the cache holds other keys than those that were pruned; reset() "
                "it, or start without it"
            )
        return known

    def _look_up(self, cache) -> Note | None:
        """The note of a cache that was built from the tensors of a pruned one."""
        some = False
        numbers: dict[tuple, torch.Tensor | None] = {}
        for recent in reversed(list(self._recent)):  # a copy: threads may add to it
            where = (recent.rows.layer, recent.rows.column)
            if where not in numbers:
                numbers[where] = _numbers(cache, *where)
            places = recent.rows.places_of(numbers[where])
            if places is not None and bool((places >= 0).all()):
                return _taken(recent, places)
            some |= places is not None and bool((places >= 0).any())
        if some:
            raise ValueError(
                "past_key_values: some rows of the cache are of a pruned prompt and others are "
                "not; allowed are rows of one prefill"
            )
        return None


def _taken(note: Note, places: torch.Tensor) -> Note:
    """The note of a cache with these rows of the note's."""
    rows = note.rows
    if rows is not None:
        rows = replace(rows, numbers=rows.numbers[places.to(rows.numbers.device)])
    return Note(note.state.rows(places), rows, note.report)


def _whatever_the_order(cache, note: Note) -> Note:
    """The note of a cache whose rows cannot be told apart: they must not differ in the note.

    Quantised keys are not the bits that were noted, and a window drops the columns that were. A
    cache that was cropped into its pruned columns has none of them; whoever reads its state refuses
    that.
    """
    state = note.state
    alike = all(bool((x == x[:1]).all()) for x in (state.mask, state.next_position, state.shift))
    if not alike and int(cache.get_seq_length()) >= state.width:
        raise ValueError(
            "past_key_values: the cache was changed since the last forward, and its "
            f"{state.mask.shape[0]} rows were pruned differently and can no longer be told apart; "
            "allowed are a cache that keeps all keys as they are (DynamicCache, StaticCache), or "
            "one row"
        )
    keys = _keys(cache)
    batch = state.mask.shape[0] if keys is None or keys.dim() != 4 else keys.shape[0]
    if batch == state.mask.shape[0]:
        return note
    return _taken(note, torch.zeros(batch, dtype=torch.int64, device=state.mask.device))


def _keys(cache) -> torch.Tensor | None:
    """The keys of the last layer that has some. What changes rows changes those of all layers."""
    for layer in reversed(getattr(cache, "layers", None) or ()):
        keys = getattr(layer, "keys", None)
        if torch.is_tensor(keys) and keys.numel() > 0:
            return keys
    return None


def _rows_of(cache, column: int) -> KeyRows | None:
    """Tells rows apart by the last layer that has all columns."""
    for layer in reversed(range(len(getattr(cache, "layers", None) or ()))):
        numbers = _numbers(cache, layer, column)
        if numbers is not None:
            return KeyRows(layer, column, numbers)
    return _rows_by_window(cache)


def _rows_by_window(cache) -> KeyRows | None:
    """Tells rows apart by the last columns of the last layer with a window."""
    for layer in reversed(range(len(getattr(cache, "layers", None) or ()))):
        numbers = _numbers(cache, layer, None)
        if numbers is not None:
            return KeyRows(layer, None, numbers)
    return None


def _numbers(cache, number: int, column: int | None) -> torch.Tensor | None:
    """int64 (B), of the keys up to a column; None where the layer does not hold those columns.

    column: None takes the last columns of a layer with a window, None for one without.
    """
    layers = getattr(cache, "layers", None) or ()
    layer = layers[number] if number < len(layers) else None
    keys = getattr(layer, "keys", None)
    if not torch.is_tensor(keys) or keys.dim() != 4:
        return None
    if (column is None) != bool(getattr(layer, "is_sliding", False)):
        return None
    if column is None:
        return of_rows(keys[:, :, -_COLUMNS:])
    if column >= min(int(layer.get_seq_length()), keys.shape[2]):
        return None
    return of_rows(keys[:, :, max(0, column + 1 - _COLUMNS) : column + 1])
