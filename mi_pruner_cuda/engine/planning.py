"""plan: which rows of each image of a request stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from .. import defaults, ops
from ..keep_hash import keep_hash
from ..reason import reason_for
from ..selection import select
from .counts import keep_counts
from .prompt import PrunedPrompt, cut_prompt, gather_columns, gather_rows


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Plan:
    """The rows that stay. Images are in the order of the prompt, their rows packed one image after
    the other.

    sizes: rows of each image.
    counts: rows kept of each image: keep_counts(sizes, keep).
    indices: int64 (sum of counts), ascending, the kept rows of the packed ones.
    scores: float32 (sum of sizes), the relevance of every row in nats; 0 without text; -inf for
        rows that hold NaN or Inf, which are kept where too few others exist.
    words: text rows that hold neither NaN nor Inf, int64 (); None where that is not known.
    estimator: of the scores.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    indices: torch.Tensor
    scores: torch.Tensor
    words: torch.Tensor | None = None
    estimator: str = defaults.ESTIMATOR

    @cached_property
    def kept(self) -> tuple[torch.Tensor, ...]:
        """int64 (counts[i]) for each image: the kept rows, counted from its own first."""
        starts = [0, *accumulate(self.sizes)]
        parts = self.indices.split(self.counts) if self.counts else ()
        return tuple(part - start for part, start in zip(parts, starts, strict=False))

    @cached_property
    def mask(self) -> torch.Tensor:
        """bool (sum of sizes): True for rows that stay."""
        mask = torch.zeros(sum(self.sizes), dtype=torch.bool, device=self.indices.device)
        mask[self.indices] = True
        return mask

    @cached_property
    def hashes(self) -> tuple[int, ...]:
        """keep_hash of each image, unsigned 64 bits: for the key of a prefix cache, beside the
        image's own hash. Waits for the device."""
        return tuple(
            keep_hash(size, own.tolist()) for size, own in zip(self.sizes, self.kept, strict=True)
        )

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """What happened to each image, in words, as Selection.reason has it. Waits for the
        device."""
        words = 2 if self.words is None else int(self.words)  # 2: nothing to be said
        lost = (self.scores[self.indices] == -math.inf).split(self.counts) if self.counts else ()
        return tuple(
            reason_for(count, count, size, words, self.estimator, count, int(own.sum()))
            for size, count, own in zip(self.sizes, self.counts, lost, strict=True)
        )

    def rows(self, x):
        """The kept rows of packed ones, by one gather.

        Args:
            x: (sum of sizes, D); DeepStack planes (planes, sum of sizes, D), or side by side as
                (sum of sizes, planes * D); or a list or tuple of such tensors. Any dtype.

        Returns:
            the same with sum of counts rows.
        """
        if isinstance(x, (list, tuple)):
            return [self._rows(f"x[{i}]", part) for i, part in enumerate(x)]
        return self._rows("x", x)

    def _rows(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return gather_rows(name, x, self.indices, sum(self.sizes), "visual rows")

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """(.., sum of sizes) -> (.., sum of counts): what has one number a row, such as positions,
        (3, sum of sizes), or masks."""
        return gather_columns("x", x, self.indices, sum(self.sizes), "visual rows")

    def split(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(sum of counts, ..), kept rows, -> (counts[i], ..) for each image."""
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x: got {type(x).__name__}, allowed is a torch.Tensor")
        if x.dim() == 0 or x.shape[0] != sum(self.counts):
            raise ValueError(
                f"x: got shape {tuple(x.shape)}, allowed is ({sum(self.counts)}, ..), the kept rows"
            )
        return list(x.split(self.counts)) if self.counts else []

    def prompt(self, tokens, placeholder=None) -> PrunedPrompt:
        """The unpruned prompt without the placeholders of the rows that go.

        Args:
            tokens: bool (L), True at placeholders; or ids (L), a tensor or a sequence, with
                placeholder. As many placeholders as the images have rows, in their order.
            placeholder: the id of a placeholder, or a sequence of ids (image and video).
        """
        return cut_prompt(tokens, placeholder, self.mask)

    def columns(self, tokens, placeholder=None) -> torch.Tensor:
        """int64 (P): the columns of the unpruned prompt that stay. Arguments of prompt."""
        return self.prompt(tokens, placeholder).columns


@torch.no_grad()
def plan(
    images: Sequence[torch.Tensor],
    text: torch.Tensor | None,
    keep,
    *,
    temperature: float = defaults.TEMPERATURE,
    redundancy: float | None = None,
    estimator: str = defaults.ESTIMATOR,
    always_keep: Sequence | None = None,
    critic=None,
    coverage: float | None = None,
) -> Plan:
    """Chooses the rows of each image that carry the most information about the text.

    Each image is judged by itself: its rows, its count and the text. What is chosen depends on
    nothing else in the request, and the same inputs give the same plan, bit for bit.

    Args:
        images: (N_i, D) for each image, or frame, in the order of the prompt: rows after the
            projector, float32, float16 or bfloat16. Where DeepStack planes lie side by side with
            them, give the first D columns: x[:, :D].
        text: (M, D), M >= 1, the question's token embeddings, same dtype and device; None chooses
            without text, by redundancy, which must be > 0 then, and coverage: the plan holds for
            every question, as a prefix cache needs it.
        keep: as in keep_counts, which says how many rows stay of each image.
        temperature, redundancy, estimator, coverage: as in mi_pruner_cuda.select.
        always_keep: None, or for each image None or the indices of its rows that stay whatever
            their score (row breaks), as a part of its count.
        critic: as in mi_pruner_cuda.select; allowed with a text only.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
    """
    redundancy, coverage = defaults.choice(keep, redundancy, coverage)
    _check_images(images, text)
    sizes = [image.shape[0] for image in images]
    counts = keep_counts(sizes, keep)
    if always_keep is not None and (
        not isinstance(always_keep, (list, tuple)) or len(always_keep) != len(sizes)
    ):
        raise ValueError(
            f"always_keep: got {always_keep!r}, allowed is None or a list with None or row indices "
            f"for each of {len(sizes)} images"
        )
    if critic is not None:
        text = _mapped(critic, text)
    if text is None:
        if redundancy == 0:
            raise ValueError(
                "redundancy: got 0 without text, allowed is > 0 there: with neither text nor "
                "redundancy nothing tells the rows apart"
            )
        text = (
            images[0][:0] if len(images) else torch.empty(0, 1, dtype=torch.float32, device="cpu")
        )
    packed = torch.cat(list(images)) if len(images) else text[:0]
    options = {
        "temperature": temperature, "redundancy": redundancy, "estimator": estimator,
        "coverage": coverage,
    }  # fmt: skip
    if always_keep is None:
        indices, scores = _choose(packed, text, sizes, counts, options)
    else:
        indices, scores = _choose_around(images, text, counts, always_keep, options)
    words = text.isfinite().all(1).sum()
    return Plan(tuple(sizes), tuple(counts), indices, scores, words, estimator)


def _mapped(critic, text):
    from ..critic import apply_critic

    if text is None:
        raise ValueError("critic: got one without text, allowed there is None")
    return apply_critic(critic, text)


def _choose(packed, text, sizes, counts, options):
    """All images in one call."""
    # A segment of no rows keeps none, which a count, at least 1, cannot say: leave it out.
    own = [i for i, size in enumerate(sizes) if size]
    offsets = [0, *accumulate(sizes[i] for i in own)]
    return ops.select_varlen(
        packed,
        text,
        torch.tensor(offsets, dtype=torch.int64, device=packed.device),
        torch.tensor([[0, text.shape[0]]], dtype=torch.int64, device=packed.device).repeat(
            len(own), 1
        ),
        [counts[i] for i in own],
        **options,
    )


def _choose_around(images, text, counts, always_keep, options):
    """One image after the other, each with its rows that stay anyway."""
    indices, scores, start = [text.new_empty(0, dtype=torch.int64)], [text.new_empty(0).float()], 0
    for i, (image, count) in enumerate(zip(images, counts, strict=True)):
        known = always_keep[i]
        try:
            chosen = select(image, text, max(1, count), always_keep=known, **options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (image {i})") from None
        indices.append(chosen.indices + start)
        scores.append(chosen.scores)
        start += image.shape[0]
    return torch.cat(indices), torch.cat(scores)


def _check_images(images, text) -> None:
    """What the operators could only say about the packed rows."""
    if isinstance(images, torch.Tensor) or not isinstance(images, Sequence):
        raise TypeError(
            f"images: got {type(images).__name__}, allowed is a list of (N_i, D) tensors"
        )
    if text is not None and not isinstance(text, torch.Tensor):
        raise TypeError(f"text: got {type(text).__name__}, allowed is a torch.Tensor or None")
    if text is not None:
        ops.check_tensor("text", text)
    if text is not None and (text.dim() != 2 or text.shape[0] == 0):
        raise ValueError(
            f"text: got shape {tuple(text.shape)}, allowed is (M, D) with M >= 1, or None to "
            "choose without text"
        )
    if text is not None and text.dtype not in ops.ROW_DTYPES:
        raise TypeError(f"text: got dtype {text.dtype}, allowed are {ops.ROW_DTYPES_IN_WORDS}")
    for i, image in enumerate(images):
        ops.check_tensor(f"images[{i}]", image)
        if image.dim() != 2:
            raise ValueError(f"images[{i}]: got shape {tuple(image.shape)}, allowed is (N_i, D)")
        like, name = (images[0], "images[0]") if text is None else (text, "text")
        for what in ("dtype", "device"):
            if getattr(image, what) != getattr(like, what):
                raise (TypeError if what == "dtype" else ValueError)(
                    f"images[{i}]: got {what} {getattr(image, what)}, allowed is that of {name}, "
                    f"{getattr(like, what)}"
                )
        if image.shape[1] != like.shape[1]:
            raise ValueError(
                f"images[{i}]: got row width {image.shape[1]}, allowed is that of {name}, "
                f"{like.shape[1]}"
            )
