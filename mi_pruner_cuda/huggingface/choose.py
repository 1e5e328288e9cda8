"""Which visual columns of a batch stay: one selection per image, or one per item."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..budget import Mass
from ..selection import Selection, select
from .models import ImageShape
from .query import Query
from .report import ImageReport, Report


@dataclass(frozen=True)
class Options:
    """What the user asked for; the arguments of attach."""

    keep: Any
    redundancy: float
    temperature: float
    estimator: str
    positions: str
    budget: str
    min_tokens: int
    selector: Callable | None = None

    def check(self) -> None:
        """Raises TypeError or ValueError naming the argument, before any prompt is seen."""
        if isinstance(self.keep, torch.Tensor):
            raise TypeError(
                "keep: got a tensor, allowed is a ratio in (0, 1], a count >= 1 or Mass(share)"
            )
        _choice("positions", self.positions, ("original", "renumbered"))
        _choice("budget", self.budget, ("per-image", "pooled"))
        if isinstance(self.min_tokens, bool) or not isinstance(self.min_tokens, int):
            raise TypeError(f"min_tokens: got {self.min_tokens!r}, allowed is an integer >= 0")
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens: got {self.min_tokens}, allowed is an integer >= 0")
        if self.selector is not None and not callable(self.selector):
            raise TypeError(
                f"selector: got {type(self.selector).__name__}, allowed is a function of "
                "(visual, text, keep) that returns a Selection"
            )
        # The selection checks its own arguments: let it, on two rows.
        self._select_by_information(torch.eye(2), torch.eye(2))

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
        )


@dataclass(frozen=True)
class Image:
    """One image in the prompt. columns: int64 (tokens), its placeholders in the item's row."""

    item: int
    number: int
    columns: torch.Tensor
    shape: ImageShape


def find_images(visual: torch.Tensor, shapes: list[ImageShape]) -> list[Image]:
    """Deals the placeholders out to the images, in order, as the model does when it merges them.

    Args:
        visual: bool (B, L), the placeholders.
        shapes: the images of the whole batch, in order.

    Raises:
        ValueError: the counts differ, or an image crosses from one item into the next.
    """
    total, described = int(visual.sum()), sum(shape.tokens for shape in shapes)
    if total != described:
        raise ValueError(
            f"images: the prompt has {total} placeholders and its {len(shapes)} images have "
            f"{described} visual tokens; pruning needs whole images and their pixel_values"
        )
    items, columns = visual.nonzero(as_tuple=True)
    images, start, numbers = [], 0, [0] * visual.shape[0]
    for shape in shapes:
        own = slice(start, start + shape.tokens)
        start += shape.tokens
        if shape.tokens == 0:
            continue
        item = int(items[own][0])
        if int(items[own][-1]) != item:
            raise ValueError(
                f"images: an image of {shape.tokens} tokens crosses from item {item} into the next"
            )
        images.append(Image(item, numbers[item], columns[own], shape))
        numbers[item] += 1
    return images


@torch.no_grad()
def choose(
    images: list[Image],
    embeddings: torch.Tensor,
    input_ids: torch.Tensor,
    real: torch.Tensor,
    query: Query,
    embed,
    options: Options,
) -> tuple[torch.Tensor, Report]:
    """Selects and reports.

    Args:
        images: where they are.
        embeddings: (B, L, D), text and visual rows as the language model would get them.
        input_ids: int64 (B, L).
        real: bool (B, L), False for padding.
        query: finds each item's question.
        embed: ids int64 (M) -> (M, D), the model's token embeddings.
        options: the budget and the method.

    Returns:
        bool (B, L), False for columns to drop; and one report per image, or per item without
        images.
    """
    keep = torch.ones(input_ids.shape, dtype=torch.bool, device=embeddings.device)
    report = Report()
    for item in range(input_ids.shape[0]):
        own = [image for image in images if image.item == item]
        if not own:
            report.append(ImageReport(item, None, 0, 0, "no image in the prompt"))
            continue
        ids = query.ids(input_ids[item], real[item])
        text = embed(torch.tensor(ids, device=input_ids.device)).to(embeddings)
        for pool in [own] if options.budget == "pooled" else [[image] for image in own]:
            report += _choose_pool(pool, embeddings[item], text, keep[item], options)
        known = {"query": ids, "query_source": query.source}
        report[-len(own) :] = [replace(entry, **known) for entry in report[-len(own) :]]
    return keep, report


def _choose_pool(pool, embeddings, text, keep, options) -> list[ImageReport]:
    """Images that share one budget: marks dropped columns in keep (L), returns their reports."""
    columns = torch.cat([image.columns for image in pool]).to(embeddings.device)
    start = time.perf_counter()
    selection = options.select(embeddings[columns], text)
    seconds = (time.perf_counter() - start) / len(pool)
    chosen = torch.zeros(len(columns), dtype=torch.bool, device=columns.device)
    chosen[selection.indices] = True
    reason = _reason(selection, len(columns), options)
    if len(columns) <= options.min_tokens:
        chosen[:] = True
        reason = f"kept all: {len(columns)} tokens <= min_tokens = {options.min_tokens}"
    keep[columns] = chosen
    entries, begin = [], 0
    for image in pool:
        own = slice(begin, begin + image.shape.tokens)
        begin = own.stop
        indices = chosen[own].nonzero()[:, 0]
        entries.append(
            ImageReport(
                item=image.item,
                image=image.number,
                tokens_before=image.shape.tokens,
                tokens_after=len(indices),
                reason=reason,
                grid=image.shape.grid,
                indices=indices,
                scores=selection.scores[own],
                seconds=seconds,
            )
        )
    return entries


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
        if not note.startswith(("kept all", "selected"))
    ]
    return "; ".join([said, *notes])


def _check_choice(selection, n: int) -> None:
    """A selector of the user's must keep to what select guarantees."""
    if not isinstance(selection, Selection):
        raise TypeError(f"selector: it returned {type(selection).__name__}, allowed is a Selection")
    indices = selection.indices
    ascending = bool((indices.diff() > 0).all())
    if not (ascending and len(indices) and int(indices[0]) >= 0 and int(indices[-1]) < n):
        raise ValueError(
            f"selector: it returned indices {indices.tolist()}, allowed are ascending indices in "
            f"[0, {n}), at least one"
        )


def _choice(name: str, value, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, allowed are {' and '.join(map(repr, allowed))}")
