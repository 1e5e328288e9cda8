"""Attention masks that a model made from the unpruned prompt, made anew for the pruned one.

Most models hand a (batch, length) mask to their language model, which makes what it needs. Some
make the masks themselves, because image tokens see each other in both directions (Gemma 3) or the
whole prompt does (PaliGemma): what the language model gets then has a row and a column per token.
Such a class has a function of its own for it, create_masks_for_generate, which generate calls.
"""

import inspect
import sys

import torch

from .step import cache_length, given_cache

_TYPES = ("token_type_ids", "mm_token_type_ids")


def remake(base, config, inputs: dict, types: dict, old: torch.Tensor, new, columns):
    """The model's own masks for pruned columns.

    Args:
        base: the vision-and-language module.
        config: the model's.
        inputs: the language model's arguments, unpruned; attention_mask is made already.
        types: token_type_ids and the like of the call, (B, L).
        old: bool (B, past + L), what the given masks were made from.
        new: (inputs_embeds (B, P, D), bool (B, past + P)) of the pruned columns.
        columns: the pruned ones (columns.Columns).

    Raises:
        ValueError: the class's function does not give the masks that the language model got, so it
            would not give the right ones for pruned columns either.
    """
    make = _maker(base)
    cache, given = given_cache(inputs), inputs["attention_mask"]
    embeddings, mask = new
    # A later turn of PaliGemma is causal: its masks are then made without token types.
    for known in (types, {}) if types else ({},):
        again = make(config, inputs["inputs_embeds"], old, cache, known)
        if _equal(again, given):
            pruned = {name: columns.values(value) for name, value in known.items()}
            return make(config, embeddings, mask, cache, pruned)
    raise ValueError(
        f"attention_mask: the language model got a {_describe(given)} with a row per token; "
        f"missing is how {type(base).__name__} makes it"
    )


def token_types(inputs: dict) -> dict:
    """Those among the arguments of the vision-and-language module."""
    return {n: inputs[n] for n in _TYPES if isinstance(inputs.get(n), torch.Tensor)}


def _maker(base):
    """(config, embeddings, mask, cache, types) -> masks."""
    own = _own_function(base)
    if own is None and hasattr(base, "_update_causal_mask"):
        return _maker_of_paligemma_4(base)
    if own is None:
        from transformers.masking_utils import create_masks_for_generate as function
    else:
        function = own
    taken = inspect.signature(function).parameters

    def make(config, embeddings, mask, cache, types):
        arguments = {"config": config, "attention_mask": mask.long(), "position_ids": None}
        versions = {
            "inputs_embeds": embeddings,
            "input_embeds": embeddings,  # transformers 4
            "cache": cache,
            "past_key_values": cache,  # before transformers 5.24
            "cache_position": _new_columns(embeddings, cache),  # transformers 4
        }
        arguments |= {name: value for name, value in versions.items() if name in taken}
        return function(**arguments, **(types if own is not None else {}))

    return make


def _maker_of_paligemma_4(base):
    """In transformers 4 PaliGemma makes its masks in a method, and reads types only to train."""

    def make(config, embeddings, mask, cache, types):
        columns = _new_columns(embeddings, cache)
        return base._update_causal_mask(mask.long(), None, cache, columns, embeddings, False)

    return make


def _new_columns(embeddings: torch.Tensor, cache) -> torch.Tensor:
    """int64 (L): the physical columns that a call adds; transformers 4 calls it cache_position."""
    past = cache_length(cache)
    end = past + embeddings.shape[1]
    return torch.arange(past, end, dtype=torch.int64, device=embeddings.device)


def _own_function(base):
    """create_masks_for_generate of the class with a head in the module where base is defined."""
    for model_class in vars(sys.modules[type(base).__module__]).values():
        own = isinstance(model_class, type) and "create_masks_for_generate" in vars(model_class)
        if own and getattr(model_class, "config_class", None) is type(base.config):
            return model_class.create_masks_for_generate
    return None


def _equal(a, b) -> bool:
    if isinstance(a, dict) or isinstance(b, dict):
        return (
            isinstance(a, dict)
            and isinstance(b, dict)
            and a.keys() == b.keys()
            and all(_equal(a[name], b[name]) for name in a)
        )
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))


def _describe(mask) -> str:
    if isinstance(mask, dict):
        return f"dict of {', '.join(map(str, mask))}"
    return f"{tuple(mask.shape)} mask"
