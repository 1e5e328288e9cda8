"""The numbers of a page of write_html, as its script reads them."""

import base64
import io
import json

import numpy as np
from PIL import Image

from ..panels import DIM, Drawing, Panel, cell_edges, numbers

# Dark to light without a step back, so that it reads in print and to the colour-blind as well.
_HEAT = ["181238", "3e2c84", "1c6892", "26a07a", "96cd50", "faec5a"]
_HEAT_STEPS = 101


def page_data(laid_out: list[Drawing]) -> str:
    """JSON that cannot end the script element it stands in, whatever the words are."""
    data = {
        "dim": DIM,
        "heat": _heat_colours(),
        "entries": [_entry_data(drawing) for drawing in laid_out],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _heat_colours() -> list[str]:
    """CSS colours from low to high, evenly between those of _HEAT."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _HEAT])
    places = np.linspace(0, len(stops) - 1, _HEAT_STEPS)
    channels = [np.interp(places, range(len(stops)), channel) for channel in stops.T]
    return [f"#{bytes(colour).hex()}" for colour in np.round(channels).astype(np.uint8).T]


def _entry_data(drawing: Drawing) -> dict:
    scores, said = drawing.scores, speaks_for(drawing)
    return {
        "tokens": len(drawing.kept),
        "kept": np.flatnonzero(drawing.kept).tolist(),
        "scores": None if scores is None else list(map(_rounded, scores.tolist())),
        "ranks": None if scores is None else ranks(scores).tolist(),
        "scale": drawing.scale,
        "words": words_of(drawing),
        "speaks_for": None if said is None else [int(n) if n >= 0 else None for n in said],
        "panels": [_panel_data(panel) for panel in drawing.panels],
    }


def _panel_data(panel: Panel) -> dict:
    (h, w), (height, width) = panel.tokens.shape, panel.pixels.shape[:2]
    return {
        "h": h,
        "w": w,
        "xs": cell_edges(width, w).tolist(),
        "ys": cell_edges(height, h).tolist(),
        "tokens": panel.tokens.ravel().tolist(),
        "uri": _data_uri(panel.pixels),
    }


def _data_uri(pixels: np.ndarray) -> str:
    """The smaller of PNG, which is exact, and JPEG, which suits photographs."""
    picture, files = Image.fromarray(pixels), {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 90})):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"


def _rounded(score: float) -> float | None:
    """Six digits are more than the page shows; what is not finite becomes None."""
    return float(f"{score:.6g}") if np.isfinite(score) else None


def ranks(scores: np.ndarray) -> np.ndarray:
    """int64 (N), 0 for the first to be kept: NaN (always kept), then from the highest score to the
    lowest, ties to the lower index, -inf last."""
    order = np.argsort(-np.where(np.isnan(scores), np.inf, scores), kind="stable")
    places = np.empty(len(scores), np.int64)
    places[order] = np.arange(len(scores))
    return places


def words_of(drawing: Drawing) -> list[str]:
    """One per query token: its text, or its id where there was no tokenizer."""
    words = getattr(drawing.entry, "words", None)
    if words:
        return [word.strip() or "\N{OPEN BOX}" for word in words]
    return [f"token {n}" for n in getattr(drawing.entry, "query", ())]


def speaks_for(drawing: Drawing) -> np.ndarray | None:
    """int64 (N), the word of each token; -1 for none."""
    said = numbers(getattr(drawing.entry, "speaks_for", None), "speaks_for")
    if said is None:
        return None
    tokens, words = len(drawing.kept), len(words_of(drawing))
    if said.shape != (tokens,) or (said >= words).any():
        raise ValueError(
            f"report: speaks_for of shape {said.shape} with numbers up to {said.max(initial=-1)}, "
            f"allowed is ({tokens},) with numbers below {words}, the words of the query"
        )
    return said
