"""The text of a page of write_html: its table and, per image or video, what stands around it."""

import html
import importlib.resources
from string import Template

import numpy as np

from ..keep_hash import keep_hash
from ..panels import Drawing, Panel, kept_mask, token_count
from ..selection import Selection
from .data import ranks, speaks_for, words_of


def file_text(name: str) -> str:
    """A file of this folder."""
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


def texts(question: str | None, answer: str | None) -> str:
    """The question and the answer, where there are any."""
    said = [
        f"<dt>{name}</dt><dd>{html.escape(text)}</dd>"
        for name, text in (("question", question), ("answer", answer))
        if text
    ]
    return f"<dl>{''.join(said)}</dl>" if said else ""


def row(entry, name: str | None) -> str:
    """Of the table: an image, a video or a prompt without any (name is None)."""
    before, kept = token_count(entry), np.flatnonzero(kept_mask(entry)).tolist()
    seconds = getattr(entry, "seconds", None)
    cells = [
        ("", html.escape(name or f"prompt {entry.item}")),
        *_counts(before, _after(entry)),
        ("number", "" if seconds is None or name is None else f"{1e3 * seconds:.2f} ms"),
        ("reason", html.escape(entry.reason)),
        ("", "" if name is None else f"<code>{keep_hash(before, kept):016x}</code>"),
    ]
    return _cells(cells)


def totals(entries: list) -> str:
    """The table's last row, where there is something to add up."""
    if len(entries) == 1:
        return ""
    before = sum(map(token_count, entries))
    after = sum(map(_after, entries))
    seconds = sum(getattr(entry, "seconds", 0.0) for entry in entries)
    return _cells([
        ("", "total"), *_counts(before, after), ("number", f"{1e3 * seconds:.2f} ms"), ("", ""),
        ("", ""),
    ])  # fmt: skip


def _after(entry) -> int:
    return entry.n_kept if isinstance(entry, Selection) else entry.tokens_after


def _counts(before: int, after: int) -> list[tuple[str, str]]:
    share = f"{100 * after / before:.3g} %" if before else ""
    return [("number", str(before)), ("number", str(after)), ("number", share)]


def _cells(cells: list[tuple[str, str]]) -> str:
    """A table row of (class, HTML)."""
    row = "".join(f'<td class="{kind}">{text}</td>' for kind, text in cells)
    return f"<tr>{row}</tr>"


def section(drawing: Drawing) -> str:
    """Everything about one image or video; the script draws on its canvases."""
    low, high = drawing.scale
    bar = f'<div class="bar"><span>{low:.3g}</span><i></i><span>{high:.3g} nats</span></div>'
    left_out = f'<p class="note">{html.escape(drawing.left_out)}.</p>' if drawing.left_out else ""
    return Template(file_text("section.html")).substitute(
        name=html.escape(drawing.name),
        size=f"{len(drawing.kept)} tokens, {int(drawing.kept.sum())} kept",
        left_out=left_out,
        slider="" if drawing.scores is None else _slider(drawing),
        slider_note=_slider_note(drawing),
        words=_legend(drawing),
        panels="\n".join(map(_figure, drawing.panels)),
        colour_bar="" if drawing.scores is None else bar,
    )


def _slider(drawing: Drawing) -> str:
    """From the rows that are always kept, or one, to all."""
    first, kept = max(1, int(np.isnan(drawing.scores).sum())), int(drawing.kept.sum())
    return (
        f'<label>Keep<input type="range" min="{first}" max="{len(drawing.kept)}" step="1" '
        f'value="{kept}" aria-label="tokens kept of {html.escape(drawing.name)}">'
        '</label><output></output><button type="button" class="reset" aria-pressed="true">'
        "As the run kept them</button>"
    )


def _slider_note(drawing: Drawing) -> str:
    """What the slider does, and whether that is what the run did."""
    if drawing.scores is None:
        return (
            "These tokens were kept without scoring: there is no heat map, and no ranking for a "
            "slider to move along."
        )
    same = np.array_equal(ranks(drawing.scores) < drawing.kept.sum(), drawing.kept)
    did = (
        "Here both agree."
        if same
        else "Here they differ: the run did not keep simply the highest scores."
    )
    return (
        "The page opens with exactly what the run kept. The slider keeps the highest scores, which "
        "is the ranking by relevance alone: with redundancy or coverage &gt; 0, or a budget of its "
        f"own for each crop or frame, a run with as many tokens would keep others. {did}"
    )


def _legend(drawing: Drawing) -> str:
    if speaks_for(drawing) is None:
        return (
            '<p class="note">Which word each patch speaks for is not in this report: attach with '
            "explain=True and a tokenizer notes it.</p>"
        )
    buttons = "".join(
        f'<li><button type="button" aria-pressed="false"><span class="swatch"></span>'
        f"{html.escape(word)} <b></b></button></li>"
        for word in words_of(drawing)
    )
    return (
        "<div>Which word of the question each kept patch speaks for (with how many patches); pick "
        f"one to see where they are:</div><ul>{buttons}</ul>"
        '<label class="coloured"><input type="checkbox">Colour kept patches by word</label>'
    )


def _figure(panel: Panel) -> str:
    h, w = panel.tokens.shape
    name = html.escape(panel.name)
    heat = (
        '<p class="note">no scores</p>'
        if panel.scores is None
        else f'<canvas class="heat" tabindex="0" role="img" aria-label="heat map of {name}; arrow '
        'keys read out patches"></canvas>'
    )
    return Template(file_text("panel.html")).substitute(
        name=name, size=f"{w} x {h} tokens", heat=heat
    )
