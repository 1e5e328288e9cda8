"""Fonts for texts of any script: a question in Chinese is not a row of boxes."""

import unicodedata
from dataclasses import dataclass

from matplotlib import font_manager, rcParams
from matplotlib.ft2font import FT2Font

_INSTEAD = "\N{REPLACEMENT CHARACTER}"
_ALWAYS_THERE = "DejaVu Sans"  # matplotlib brings it along, and it has _INSTEAD
_EMPTY = ("lastresort", "adobeblank")  # have every character, as a box or as nothing
_NORMAL = 400


@dataclass(frozen=True)
class Writing:
    """A text that can be drawn.

    text: without what has no shape, and with a replacement character for what no font has.
    families: of the fonts to draw it with: the next one where the first lacks a character.
    weight: of the fonts; normal where others than the caller's help out, which have no other.
    missing: the characters that no font has.
    """

    text: str
    families: list[str]
    weight: str
    missing: list[str]


def writing(text: str, weight: str) -> Writing:
    """Chooses fonts among those that matplotlib knows, the caller's own first.

    Args:
        text: of any script.
        weight: that the caller's own fonts shall have, "bold" for example.
    """
    families = [*rcParams["font.family"], _ALWAYS_THERE]
    missing = set(text) - {"\n"}
    for family in families:
        missing -= _has(_own_font(family, weight), missing)
    shapeless = {c for c in missing if unicodedata.category(c) in ("Cc", "Cf")}
    missing -= shapeless
    helping = _helping(missing)
    for _, has in helping:
        missing -= has
    drawn = "".join(_INSTEAD if c in missing else c for c in text if c not in shapeless)
    return Writing(
        drawn,
        [*families, *(family for family, _ in helping)],
        "normal" if helping else weight,
        [c for c in dict.fromkeys(text) if c in missing],
    )


def _helping(missing: set[str]) -> list[tuple[str, set[str]]]:
    """(family, what it has of the missing characters), few families that have all they can."""
    found: list[tuple[str, set[str]]] = []
    offers = [(entry.name, _has(_font_of(entry), missing)) for entry in _faces()] if missing else []
    while missing and offers:
        family, has = max(offers, key=lambda offer: len(offer[1] & missing))  # the first of equals
        if not has & missing:
            break
        found.append((family, has))
        missing = missing - has
    return found


def _faces() -> list:
    """One entry of matplotlib's list for each family: upright, near to the normal weight. Sans
    serif comes first."""
    best: dict[str, tuple] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.name.replace(" ", "").lower().lstrip(".").startswith(_EMPTY):
            continue
        weight = font_manager.weight_dict.get(entry.weight, entry.weight)
        rank = entry.style != "normal", abs(weight - _NORMAL)
        if entry.name not in best or rank < best[entry.name][0]:
            best[entry.name] = rank, entry
    ranked = [(rank, "sans" not in name.lower(), name, e) for name, (rank, e) in best.items()]
    return [entry for *_, entry in sorted(ranked, key=lambda face: face[:3])]


def _has(font: FT2Font | None, characters: set[str]) -> set[str]:
    """Those that the font has a shape for."""
    if font is None or not font.scalable:  # matplotlib cannot draw bitmaps
        return set()
    return {c for c in characters if font.get_char_index(ord(c))}


def _own_font(family: str, weight: str) -> FT2Font | None:
    properties = font_manager.FontProperties(family=[family], weight=weight)
    try:
        return font_manager.get_font(
            font_manager.findfont(properties, fallback_to_default=False, rebuild_if_missing=False)
        )
    except (OSError, RuntimeError, ValueError):  # not installed, no longer there, or damaged
        return None


def _font_of(entry) -> FT2Font | None:
    path = entry.fname
    if hasattr(font_manager, "FontPath"):  # a file may hold several fonts since matplotlib 3.11
        path = font_manager.FontPath(path, entry.index)
    try:
        return font_manager.get_font(path)
    except (OSError, RuntimeError):  # no longer there, or damaged
        return None
