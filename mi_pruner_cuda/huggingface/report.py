"""What the latest prefill kept, image by image."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class ImageReport:
    """One image of the latest prefill, or one prompt without images.

    item: row of the batch. Beam search and num_return_sequences repeat each prompt before the
        prefill, so their rows are those of the repeated batch.
    image: the image's number within its item; None where the prompt has no image.
    tokens_before, tokens_after: visual tokens of this image.
    grid: (t, h, w) or (h, w) in tokens, as the language model sees them; None where it is not
        known.
    indices: int64 (tokens_after), ascending, within the image.
    scores: float32 (tokens_before), nats; None where nothing had to be scored.
    query: the token ids that stood for the question.
    query_source: where they came from, in words.
    seconds: host time of the selection. Images of one pool share its time equally.
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

    def __str__(self) -> str:
        if self.image is None:
            return f"item {self.item}: {self.reason}"
        grid = "" if self.grid is None else f" ({' x '.join(map(str, self.grid))})"
        query = (
            f", query: {len(self.query)} tokens, {self.query_source}" if self.query_source else ""
        )
        return (
            f"item {self.item}, image {self.image}: "
            f"{self.tokens_before}{grid} -> {self.tokens_after} tokens "
            f"in {1e3 * self.seconds:.2f} ms, {self.reason}{query}"
        )


class Report(list):
    """A list of ImageReport that prints as one line per image."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no prefill yet"

    def add_whole(self, item: int, tokens: int) -> None:
        """Notes visual tokens of an item, other than images, that are not pruned."""
        reason = "kept all: only images are pruned, this is video"
        self.append(ImageReport(item, None, tokens, tokens, reason))

    @property
    def tokens_before(self) -> int:
        """Visual tokens of all images."""
        return sum(image.tokens_before for image in self)

    @property
    def tokens_after(self) -> int:
        """Visual tokens kept of all images."""
        return sum(image.tokens_after for image in self)
