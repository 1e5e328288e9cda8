"""What the latest prefill kept, image by image and video by video."""

import math
from dataclasses import dataclass, field

import torch

from ..keep_hash import keep_hash


@dataclass(frozen=True)
class Part:
    """Where a block of visual tokens lies: one frame of a video, one crop of a picture.

    first: the block's first token, counted within its image or video.
    grid: (h, w) in tokens.
    stride: tokens from one row to the next; w, or w + 1 where a row break follows each row.
    box: (left, top, right, bottom) of the picture that the block shows, as fractions in [0, 1].
    frame: of a video; 0 for pictures.
    name: "frame 3", "crop 1, 2" or "overview"; empty for the whole picture.
    """

    first: int
    grid: tuple[int, int]
    stride: int
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    frame: int = 0
    name: str = ""

    @property
    def tokens(self) -> torch.Tensor:
        """int64 (h, w): the token in each cell, counted within the image or video."""
        rows, columns = (torch.arange(n, dtype=torch.int64, device="cpu") for n in self.grid)
        return self.first + self.stride * rows[:, None] + columns


@dataclass(frozen=True)
class ImageReport:
    """One image or video of the latest prefill, or one prompt without any.

    item: row of the batch. Beam search and num_return_sequences repeat each prompt before the
        prefill, so their rows are those of the repeated batch.
    image: the image's number among its item's images, or the video's among its videos; None where
        the prompt has none.
    tokens_before, tokens_after: visual tokens of this image.
    kind: "image" or "video".
    grid: (t, h, w) or (h, w) in tokens, as the language model sees them; None where it is not
        known or not one grid.
    parts: where its tokens lie, for drawing; empty where that is not known. Row breaks are in none.
    indices: int64 (tokens_after), ascending, within the image; None where all are kept.
    scores: float32 (tokens_before), nats; None where nothing had to be scored. Rows that are always
        kept (row breaks) have NaN.
    query: the token ids that stood for the question; empty for a selection without text.
    words: the same as text, one string per id, where a tokenizer was given; else empty.
    speaks_for: int64 (tokens_before), the place in query of the token about which each row says
        most (words.speaks_for); None unless attach got explain=True, and without text.
    query_source: where the query came from, in words.
    seconds: host time of the selection. Images of one pool share its time equally.
    critic: what compared rows and words (Critic's own words), "" for plain cosines.
    reason: "pruned", "kept all: keep = 1.0", "no image in the prompt" and so on.
    """

    item: int
    image: int | None
    tokens_before: int
    tokens_after: int
    reason: str
    grid: tuple[int, ...] | None = None
    indices: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    query: list[int] = field(default_factory=list)
    query_source: str = ""
    seconds: float = 0.0
    kind: str = "image"
    parts: tuple[Part, ...] = ()
    words: list[str] = field(default_factory=list)
    speaks_for: torch.Tensor | None = None
    critic: str = ""

    @property
    def keep_hash(self) -> int:
        """Of the kept rows, unsigned 64 bits: what an engine that caches a prefix puts into its key
        beside the image's own hash. mipruner_keep_hash of the C library gives the same.
        """
        return keep_hash(self.tokens_before, _kept(self))

    def to_dict(self) -> dict:
        """Everything as numbers, strings and lists that JSON can hold: no NaN, no infinity."""
        return {
            "item": self.item,
            "image": self.image,
            "kind": self.kind,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "reason": self.reason,
            "grid": None if self.grid is None else list(self.grid),
            "parts": [
                {"first": p.first, "grid": list(p.grid), "stride": p.stride, "box": list(p.box),
                 "frame": p.frame, "name": p.name}
                for p in self.parts
            ],
            "indices": _numbers(self.indices),
            "scores": _numbers(self.scores),
            "speaks_for": _numbers(self.speaks_for),
            "query": list(self.query),
            "words": list(self.words),
            "query_source": self.query_source,
            "critic": self.critic,
            "seconds": self.seconds,
            "keep_hash": f"{self.keep_hash:016x}",
        }  # fmt: skip

    def __str__(self) -> str:
        if self.image is None:
            return f"item {self.item}: {self.reason}"
        grid = "" if self.grid is None else f" ({' x '.join(map(str, self.grid))})"
        query = (
            f", query: {len(self.query)} tokens, {self.query_source}" if self.query_source else ""
        )
        return (
            f"item {self.item}, {self.kind} {self.image}: "
            f"{self.tokens_before}{grid} -> {self.tokens_after} tokens "
            f"in {1e3 * self.seconds:.2f} ms, {self.reason}{query}"
        )


class Report(list):
    """A list of ImageReport that prints as one line per image."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no prefill yet"

    @property
    def tokens_before(self) -> int:
        """Visual tokens of all images and videos."""
        return sum(image.tokens_before for image in self)

    @property
    def tokens_after(self) -> int:
        """Visual tokens kept of all images and videos."""
        return sum(image.tokens_after for image in self)

    def to_dict(self) -> dict:
        """Totals and every image, as JSON can hold them."""
        return {
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "images": [image.to_dict() for image in self],
        }

    def to_table(self) -> dict[str, list]:
        """One column per name and one row per visual token, as pandas.DataFrame takes it.

        Columns: item, kind, image, token; part (its name), frame, row, column (these four None for
        tokens of no part); score in nats; kept; word (that it speaks for, where known).
        """
        table: dict[str, list] = {name: [] for name in _COLUMNS}
        for image in self:
            for row in _token_rows(image):
                for name, value in zip(_COLUMNS, row, strict=True):
                    table[name].append(value)
        return table


_COLUMNS = (
    "item",
    "kind",
    "image",
    "token",
    "part",
    "frame",
    "row",
    "column",
    "score",
    "kept",
    "word",
)


def _token_rows(image: ImageReport):
    """One tuple in the order of _COLUMNS per visual token."""
    if image.image is None:
        return
    places = {}
    for part in image.parts:
        for (row, column), token in _cells(part):
            places[token] = (part.name, part.frame, row, column)
    kept = set(_kept(image))
    scores = _numbers(image.scores) or [None] * image.tokens_before
    speaks = _numbers(image.speaks_for)
    for token in range(image.tokens_before):
        said = None if speaks is None or speaks[token] < 0 else speaks[token]
        word = None if said is None else image.words[said] if image.words else image.query[said]
        place = places.get(token, (None,) * 4)
        yield (
            image.item, image.kind, image.image, token, *place, scores[token], token in kept, word,
        )  # fmt: skip


def _kept(image: ImageReport) -> list[int]:
    """The kept tokens; all, where no choice was made."""
    return list(range(image.tokens_before)) if image.indices is None else image.indices.tolist()


def _cells(part: Part):
    """((row, column), token) of every cell."""
    for row, tokens in enumerate(part.tokens.tolist()):
        for column, token in enumerate(tokens):
            yield (row, column), token


def _numbers(values: torch.Tensor | None) -> list | None:
    """A list; what is not finite becomes None."""
    if values is None:
        return None
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in values.tolist()]
