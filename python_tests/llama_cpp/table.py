"""The result table of README, from what the checks wrote down in this run."""

_COLUMNS = {
    "kind": "kind",
    "rows": "image rows",
    "kept": "kept",
    "n_past_all": "n_past, all rows",
    "n_past_kept": "n_past, kept rows",
    "equal_at_keep_1": "keep 1: logits and KV cache bitwise those of llama.cpp",
    "generated": "tokens generated after pruning",
}


class Table:
    """Collects numbers by kind of model; a number that was not measured stays empty."""

    def __init__(self):
        self._rows: dict[str, dict[str, str]] = {}
        self._notes: list[str] = []

    def add(self, kind: str, properties: dict) -> None:
        """Adds those properties of a kind that have a column."""
        known = {name: str(properties[name]) for name in _COLUMNS if name in properties}
        if known:
            self._rows.setdefault(kind, {"kind": kind}).update(known)

    def note(self, sentence: str) -> None:
        """Adds a sentence below the table."""
        self._notes.append(sentence)

    def lines(self) -> list[str]:
        """The table in Markdown, then the notes; nothing where nothing was added."""
        rows = [[row.get(name, "") for name in _COLUMNS] for row in self._rows.values()]
        if rows:
            rows = [_COLUMNS.values(), ["---"] * len(_COLUMNS), *rows]
        return [*map(_line, rows), *self._notes]


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"
