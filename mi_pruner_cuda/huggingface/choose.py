"""Which visual columns of a batch stay: one selection per pool of tokens that share a budget."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch

from .. import ops
from ..budget import Mass
from ..critic.bilinear import Critic
from ..reason import is_not_finite_note, not_finite_note
from ..selection import Selection, select
from .query import Query
from .report import ImageReport, Report
from .visuals import Visual
from .words import speaks_for


@dataclass(frozen=True)
class Options:
    """What the user asked for; the arguments of attach."""

    keep: Any
    redundancy: float
    temperature: float
    estimator: str
    positions: str
    budget: str
    video_budget: str
    min_tokens: int
    text_free: bool = False
    explain: bool = False
    selector: Callable | None = None
    critic: Critic | None = None
    coverage: float = 0.0

    def check(self) -> None:
        """Raises TypeError or ValueError naming the argument, before any prompt is seen."""
        if isinstance(self.keep, torch.Tensor):
            raise TypeError(
                "keep: got a tensor, allowed is a ratio in (0, 1], a count >= 1 or Mass(share)"
            )
        _choice("positions", self.positions, ("original", "renumbered"))
        _choice("budget", self.budget, ("per-image", "per-crop", "pooled"))
        _choice("video_budget", self.video_budget, ("per-frame", "per-video"))
        if isinstance(self.min_tokens, bool) or not isinstance(self.min_tokens, int):
            raise TypeError(f"min_tokens: got {self.min_tokens!r}, allowed is an integer >= 0")
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens: got {self.min_tokens}, allowed is an integer >= 0")
        if self.selector is not None and not callable(self.selector):
            raise TypeError(
                f"selector: got {type(self.selector).__name__}, allowed is a function of "
                "(visual, text, keep) that returns a Selection"
            )
        if self.text_free and isinstance(self.keep, Mass):
            raise ValueError(
                "keep: got Mass with query=None, allowed is a count or a ratio there: without text "
                "no row has relevance"
            )
        if self.text_free and self.redundancy == 0:
            raise ValueError(
                "redundancy: got 0 with query=None, allowed is > 0 there: with neither text nor "
                "redundancy nothing tells the rows apart"
            )
        # The selection checks its own arguments: let it, on two rows.
        rows = torch.eye(2, dtype=torch.float32, device="cpu")
        self._select_by_information(rows, rows)

    def select(self, visual: torch.Tensor, text: torch.Tensor) -> Selection:
        """(N, D), (M, D) -> Selection."""
        if self.selector is None:
            return self._select_by_information(visual, text)
        selection = self.selector(visual, text, self.keep)
        _check_choice(selection, visual.shape[0])
        return selection

    def _select_by_information(self, visual: torch.Tensor, text: torch.Tensor) -> Selection:
        return select(
            visual,
            text,
            self.keep,
            temperature=self.temperature,
            redundancy=self.redundancy,
            estimator=self.estimator,
            coverage=self.coverage,
        )


@dataclass(frozen=True)
class Pool:
    """Tokens of one item that share a budget.

    members: the images (or one video) that they belong to, with the tokens of each, int64, counted
        within it.
    at_least_one: for each of these groups of places in the pool one token is kept at least.
    """

    members: list[tuple[Visual, torch.Tensor]]
    at_least_one: list[range]


@torch.no_grad()
def choose(
    visuals: list[Visual],
    embeddings: torch.Tensor,
    input_ids: torch.Tensor,
    asked: torch.Tensor,
    query: Query,
    embed,
    options: Options,
) -> tuple[torch.Tensor, Report]:
    """Selects and reports.

    Args:
        visuals: images and videos, item by item.
        embeddings: (B, L, D), text and visual rows as the language model would get them.
        input_ids: int64 (B, L).
        asked: bool (B, L), False for padding and for guesses at what follows the prompt.
        query: finds each item's question.
        embed: ids int64 (M) -> (M, D), the model's token embeddings.
        options: the budget and the method.

    Returns:
        bool (B, L), False for columns to drop; and one report per image or video, or per item
        without any.
    """
    keep = torch.ones(input_ids.shape, dtype=torch.bool, device=embeddings.device)
    report = Report()
    for item in range(input_ids.shape[0]):
        own = [visual for visual in visuals if visual.item == item]
        if not own:
            report.append(ImageReport(item, None, 0, 0, "no image in the prompt"))
            continue
        spans = [(int(visual.columns[0]), int(visual.columns[-1])) for visual in own]
        ids = _question(query, item, input_ids, asked, spans)
        # At least one id, so that the width is known; without text its row is cut off again.
        known = torch.tensor(ids or [0], dtype=torch.int64, device=input_ids.device)
        text = embed(known)[: len(ids)].to(embeddings)
        drafts = [_Draft(visual) for visual in own]
        if options.critic is not None and ids:
            text = _map_words(text, options.critic, drafts)
        for pool in pools(own, options):
            _choose_pool(pool, embeddings[item], text, options, drafts)
        for draft in drafts:
            keep[item, draft.visual.columns.to(keep.device)] = draft.kept.to(keep.device)
            entry = draft.report(ids, query, options.critic if ids else None)
            if options.explain and ids:
                rows = embeddings[item, draft.visual.columns.to(embeddings.device)]
                speaking = speaks_for(rows, text, options.temperature)
                entry = replace(entry, speaks_for=speaking)
            report.append(entry)
    return keep, report


def _question(query: Query, item: int, input_ids, asked, spans) -> list[int]:
    """Its token ids. An item of several that has none is named."""
    try:
        return query.ids(input_ids[item], asked[item], spans)
    except ValueError as error:
        if len(input_ids) == 1:
            raise
        raise ValueError(f"item {item} of the batch: {error}") from None


def _map_words(text, critic: Critic, drafts: list["_Draft"]):
    """Once, for whatever compares rows with words. The images of the item share its time."""
    start = time.perf_counter()
    text = critic.apply(text)
    seconds = time.perf_counter() - start
    for draft in drafts:
        draft.seconds += seconds / len(drafts)
    return text


def pools(visuals: list[Visual], options: Options) -> list[Pool]:
    """Who competes with whom, of one item's images and videos."""
    shared: list[tuple[Visual, torch.Tensor]] = []
    found: list[Pool] = []
    for visual in visuals:
        content = _content(visual)
        blocks = visual.shape.blocks or (range(visual.shape.tokens),)
        in_blocks = [content[(content >= b.start) & (content < b.stop)] for b in blocks]
        film = visual.kind == "video"
        if options.video_budget == "per-frame" if film else options.budget == "per-crop":
            found += [Pool([(visual, tokens)], []) for tokens in in_blocks if len(tokens)]
        elif film:
            ends = [0, *accumulate(map(len, in_blocks))]
            groups = [range(a, b) for a, b in pairwise(ends) if b > a]
            found.append(Pool([(visual, content)], groups))
        elif options.budget == "pooled":
            shared.append((visual, content))
        else:
            found.append(Pool([(visual, content)], []))
    return found + ([Pool(shared, [])] if shared else [])


def _content(visual: Visual) -> torch.Tensor:
    """int64: the tokens that are not row breaks."""
    content = torch.ones(visual.shape.tokens, dtype=torch.bool, device="cpu")
    content[list(visual.shape.breaks)] = False
    return content.nonzero()[:, 0]


class _Draft:
    """What becomes of one image or video, pool by pool."""

    def __init__(self, visual: Visual):
        tokens = visual.shape.tokens
        self.visual = visual
        # Row breaks are in no pool.
        self.kept = torch.ones(tokens, dtype=torch.bool, device="cpu")
        self.scores = torch.full((tokens,), torch.nan, dtype=torch.float32, device="cpu")
        self.not_finite = torch.zeros(tokens, dtype=torch.bool, device="cpu")
        self.seconds = 0.0
        self.reasons: list[str] = []

    def note(self, tokens, kept, scores, not_finite, seconds: float, reason: str) -> None:
        """tokens: int64, the ones of this pool; kept, scores, not_finite: of each."""
        self.kept[tokens] = kept.cpu()
        self.scores[tokens] = scores.cpu()
        self.not_finite[tokens] = not_finite.cpu()
        self.seconds += seconds
        if reason not in self.reasons:
            self.reasons.append(reason)

    def report(self, ids: list[int], query: Query, critic: Critic | None) -> ImageReport:
        visual, shape = self.visual, self.visual.shape
        indices = self.kept.nonzero()[:, 0]
        notes = [f"{len(shape.breaks)} row breaks stay"] if shape.breaks else []
        not_finite = int((self.kept & self.not_finite).sum())
        if not_finite:
            notes.append(not_finite_note(not_finite, len(indices)))
        return ImageReport(
            item=visual.item,
            image=visual.number,
            kind=visual.kind,
            tokens_before=shape.tokens,
            tokens_after=len(indices),
            reason="; ".join(self.reasons + notes),
            grid=shape.grid,
            parts=shape.parts,
            indices=indices,
            scores=self.scores,
            seconds=self.seconds,
            query=ids,
            words=query.words(ids),
            query_source=query.source,
            critic="" if critic is None else str(critic),
        )


def _choose_pool(pool: Pool, embeddings, text, options: Options, drafts: list[_Draft]) -> None:
    """Selects within a pool and notes it in the drafts of its members."""
    columns = torch.cat([v.columns.to(t.device)[t] for v, t in pool.members]).to(embeddings.device)
    start = time.perf_counter()
    selection = options.select(embeddings[columns], text)
    chosen = torch.zeros(len(columns), dtype=torch.bool, device=columns.device)
    chosen[selection.indices] = True
    represent(chosen, selection.scores, pool.at_least_one)
    seconds = (time.perf_counter() - start) / len(pool.members)
    not_finite = _not_finite(selection, embeddings[columns], options)
    reason = _reason(selection, len(columns), options)
    if len(columns) <= options.min_tokens:
        chosen[:] = True
        reason = f"kept all: {len(columns)} tokens <= min_tokens = {options.min_tokens}"
    begin = 0
    for visual, tokens in pool.members:
        own = slice(begin, begin + len(tokens))
        begin = own.stop
        draft = next(d for d in drafts if d.visual is visual)
        scores = selection.scores[own]
        draft.note(tokens, chosen[own], scores, not_finite[own], seconds, reason)


def _not_finite(selection: Selection, rows: torch.Tensor, options: Options) -> torch.Tensor:
    """bool (N): the rows that hold NaN or Inf. No other scores -inf, but with a selector of the
    user's, whose scores are its own."""
    if options.selector is None:
        return selection.scores == -math.inf
    return ~rows.isfinite().all(1)


def represent(chosen: torch.Tensor, scores: torch.Tensor, groups: list[range]) -> None:
    """Gives every group a token, its best; for each, the worst goes that its group can spare.

    Args:
        chosen: bool (N), changed in place. There are as many afterwards, or one per group if that
            is more.
        scores: float32 (N), nats.
        groups: places in chosen.
    """
    where = [torch.tensor(list(g), dtype=torch.long, device=chosen.device) for g in groups]
    empty = [g for g in where if not bool(chosen[g].any())]
    for group in empty:
        spare = [g[chosen[g]] for g in where if int(chosen[g].sum()) > 1]
        chosen[group[scores[group].argmax()]] = True
        if spare:
            candidates = torch.cat(spare)
            chosen[candidates[scores[candidates].argmin()]] = False


def _reason(selection: Selection, n: int, options: Options) -> str:
    """The selection's own words, with what attach can add."""
    whole = isinstance(options.keep, float) and options.keep == 1
    if selection.n_kept < n:
        said = "pruned" if not isinstance(options.keep, Mass) else "pruned by mass"
    elif whole:
        said = "kept all: keep = 1.0"
    else:
        said = f"kept all: the budget covers {n} tokens"
    notes = [
        note
        for note in selection.reason.split("; ")
        # Of NaN and Inf the draft speaks, once for all pools.
        if not note.startswith(("kept all", "selected")) and not is_not_finite_note(note)
    ]
    return "; ".join([said, *notes])


def _check_choice(selection, n: int) -> None:
    """A selector of the user's must keep to what select guarantees."""
    if not isinstance(selection, Selection):
        raise TypeError(f"selector: it returned {type(selection).__name__}, allowed is a Selection")
    indices, scores = selection.indices, selection.scores
    for what, tensor in (("indices", indices), ("scores", scores)):
        if isinstance(tensor, torch.Tensor):
            ops.check_tensor(f"selector: its {what}", tensor)
    whole = isinstance(indices, torch.Tensor) and indices.dtype == torch.int64
    if not whole or indices.dim() != 1:
        raise TypeError(
            f"selector: it returned indices {indices!r}, allowed is an int64 tensor (K)"
        )
    ascending = bool((indices.diff() > 0).all())
    if not (ascending and len(indices) and int(indices[0]) >= 0 and int(indices[-1]) < n):
        raise ValueError(
            f"selector: it returned indices {indices.tolist()}, allowed are ascending indices in "
            f"[0, {n}), at least one"
        )
    if not isinstance(scores, torch.Tensor) or scores.shape != (n,):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f"selector: it returned scores {shape}, allowed is a tensor ({n},)")
    if scores.is_complex():
        raise TypeError(f"selector: it returned {scores.dtype} scores, allowed are real numbers")


def _choice(name: str, value, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, allowed are {' and '.join(map(repr, allowed))}")
