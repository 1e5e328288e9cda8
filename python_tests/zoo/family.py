"""A family: one model class with random weights, its prompts, and where its visual tokens lie."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tiny_models import build

from .prompt import (
    BOS,
    FIRST_WORD,
    IMAGE,
    LINE_BREAK,
    PAD,
    VIDEO,
    Film,
    Layout,
    Picture,
    Shot,
    Visual,
)
from .text import before_transformers_5


def no_extra_inputs(ids: torch.Tensor) -> dict:
    """(B, L) -> nothing: most classes need the ids alone."""
    return {}


@dataclass(frozen=True)
class Family:
    """One row of the zoo.

    config: () -> the model's class and its config.
    lay: (visual, whether it is its item's only picture) -> Layout.
    pixels: (shots of the whole batch in order, items in the batch) -> model inputs.
    sizes: pictures that the class allows.
    film_sizes: films that the class allows; none where it has no video.
    mixes: whether a batch may hold both pictures and films.
    prefix: whether text begins (BOS) after the item's last visual and ends with a line break, as
        PaliGemma's does; else it begins with the prompt.
    extra: padded ids (B, L) -> further inputs, such as token types.
    """

    name: str
    model_type: str
    config: Callable
    lay: Callable[[Picture | Film, bool], Layout]
    pixels: Callable[[list[Shot], int], dict]
    sizes: tuple[Picture, ...]
    film_sizes: tuple[Film, ...] = ()
    mixes: bool = True
    prefix: bool = False
    extra: Callable[[torch.Tensor], dict] = no_extra_inputs
    attentions: tuple[str, ...] = ("sdpa", "eager")

    @property
    def videos(self) -> bool:
        """Whether prompts may hold films."""
        return bool(self.film_sizes)

    def picture(self, i: int) -> Picture:
        """The i-th picture size, going round."""
        return self.sizes[i % len(self.sizes)]

    def film(self, i: int) -> Film | None:
        """The i-th film size, going round; None without video."""
        return self.film_sizes[i % len(self.film_sizes)] if self.videos else None

    def build(self, attention: str | None = None, seed: int = 0):
        """A model in eval mode, float32; attention: one of attentions, the first by default."""
        attention = attention or self.attentions[0]
        # Narrow enough for rounding to stay below 1e-5 in the logits.
        return build(*self.config(), attention, seed, spread=0.2, marks=FIRST_WORD)

    def inputs(self, model, prompts: list[list], seed: int = 0, repaint=None) -> dict:
        """What a processor would return for a batch.

        Pixels depend on the item's words and the visual's place only, so that a prompt has the
        same pictures alone and in a batch.

        Args:
            prompts: of each item, words, pictures and films in order.
            repaint: (item, place among the item's visuals) of one visual to give other pixels.
        """
        rows = [self._ids(prompt) for prompt in prompts]
        length = max(map(len, rows))
        ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
        inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long(), **self.extra(ids)}
        shots = [
            shot
            for item, prompt in enumerate(prompts)
            for shot in _shots(item, prompt, seed, repaint)
        ]
        return inputs | self.pixels(shots, len(prompts)) if shots else inputs

    def visuals(self, prompts: list[list], inputs: dict) -> list[list[Visual]]:
        """The visuals of each item, in prompt order."""
        length = inputs["input_ids"].shape[1]
        result = []
        for prompt in prompts:
            column = length - len(self._ids(prompt))  # after the padding
            found = []
            for part, piece in self._pieces(prompt):
                if isinstance(piece, Layout):
                    found.append(_visual(part, piece, column))
                column += len(_ids_of(piece))
            result.append(found)
        return result

    def _pieces(self, prompt: list) -> list[tuple]:
        """(word, word), (visual, its Layout) or (None, what the processor adds), in order."""
        single = _is_single(prompt)
        pieces = [(p, p if isinstance(p, int) else self.lay(p, single)) for p in prompt]
        if not self.prefix:
            return [(None, BOS), *pieces]
        begin = max((i + 1 for i, p in enumerate(prompt) if not isinstance(p, int)), default=0)
        return [*pieces[:begin], (None, BOS), *pieces[begin:], (None, LINE_BREAK)]

    def _ids(self, prompt: list) -> list[int]:
        return [i for _, piece in self._pieces(prompt) for i in _ids_of(piece)]


def _ids_of(piece: int | Layout) -> list[int]:
    return [piece] if isinstance(piece, int) else piece.ids


def _visual(part: Picture | Film, layout: Layout, column: int) -> Visual:
    """A visual whose layout begins at a column; films may have placeholders of their own."""
    mark = VIDEO if VIDEO in layout.ids else IMAGE
    columns = [column + i for i, v in enumerate(layout.ids) if v == mark]
    kind = "video" if isinstance(part, Film) else "image"
    return Visual(kind, columns, layout.breaks, layout.blocks, layout.grid)


def _is_single(prompt: list) -> bool:
    return sum(isinstance(part, Picture) for part in prompt) == 1


def _shots(item: int, prompt: list, seed: int, repaint: tuple[int, int] | None) -> list[Shot]:
    """The visuals of an item."""
    words = sum(part for part in prompt if isinstance(part, int))
    visuals = [part for part in prompt if not isinstance(part, int)]
    shots = []
    for place, visual in enumerate(visuals):
        own = 1000 * seed + 7 * place + words + 10**6 * (repaint == (item, place))
        generator = torch.Generator().manual_seed(own)
        shots.append(Shot(item, visual, _is_single(prompt), generator))
    return shots


def apart(images: Callable[[list[Shot]], dict], films: Callable[[list[Shot]], dict]) -> Callable:
    """The pixels of a class that takes pictures and films as arguments of their own."""

    def pixels(shots: list[Shot], batch: int) -> dict:
        pictures = [shot for shot in shots if isinstance(shot.visual, Picture)]
        moving = [shot for shot in shots if isinstance(shot.visual, Film)]
        return (images(pictures) if pictures else {}) | (films(moving) if moving else {})

    return pixels


@torch.no_grad()
def language_model_call(model, inputs: dict) -> dict:
    """Runs the model once without a cache; what its language model was given, by name.

    Gemma 3 and PaliGemma give it ready masks, the others (B, L).
    """
    seen = []
    hook = language_model_of(model).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return dict(seen[0])


def language_model_of(model):
    """The decoder that runs on the merged embeddings."""
    base = model.model
    return base.text_model if hasattr(base, "text_model") else base.language_model


def logits_of(model, hidden: torch.Tensor) -> torch.Tensor:
    """What the class makes of the language model's last_hidden_state (B, L, D): (B, L, V)."""
    logits = model.lm_head(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    # Gemma 3 has the setting too, but its vision-language class does not read it; PaliGemma's does
    # since transformers 5.
    if cap is None or model.config.model_type != "paligemma" or before_transformers_5():
        return logits
    return cap * torch.tanh(logits / cap)
