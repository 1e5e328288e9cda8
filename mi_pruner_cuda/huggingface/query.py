"""Which token ids stand for the question."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from .. import _arrays, _checks
from .models import Parts
from .template import learn_template
from .written import Written

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


class Query:
    """Finds the question in a row of input_ids, or holds the one that the user gave.

    source: in words, where the token ids come from.
    """

    def __init__(self, parts: Parts, query, processor):
        """Reads the special ids, learns the chat template.

        Args:
            parts: the model.
            query: "question" (the question's own tokens), "all" (every text token), another text,
                token ids, or None (no text).
            processor: a tokenizer, a processor with a tokenizer, or None.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        self._placeholders = parts.placeholders
        tokenizer = getattr(processor, "tokenizer", processor)
        if processor is not None and not callable(tokenizer):
            raise TypeError(
                f"tokenizer: got {type(processor).__name__}, allowed is a tokenizer or a processor"
            )
        self._given = None
        self._everything = False
        self._tokenizer = tokenizer
        self._special = _special_ids(parts, tokenizer) | self._placeholders
        self._template = None
        self._written = Written(parts.model.config, parts.spec.writes, parts.image_token, tokenizer)
        if query is None:
            self._given = []
            self.source = "no text: the kept rows do not depend on the question"
        elif isinstance(query, str) and query == "question":
            if tokenizer is not None:
                self._template = learn_template(processor, tokenizer, self._special)
            self.source = _describe(tokenizer, self._template)
        elif isinstance(query, str) and query == "all":
            self._special = self._placeholders
            self._everything = True
            self.source = "all text of the prompt"
        elif isinstance(query, str):
            self._given = _tokenize(query, tokenizer)
            self.source = "query= text"
        else:
            self._given = _check_ids(query, parts.model)
            self.source = "query= token ids"

    def words(self, ids: list[int]) -> list[str]:
        """Each id as text; [] without a tokenizer."""
        return [] if self._tokenizer is None else [self._tokenizer.decode([i]) for i in ids]

    def ids(
        self, row: torch.Tensor, real: torch.Tensor, spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """The question's token ids.

        Args:
            row: int64 (L), the item's input_ids.
            real: bool (L), False for padding.
            spans: first and last column of each image and video: what stands between is the
                processor's, such as marks of tiles and times of frames.

        Raises:
            ValueError: nothing is left.
        """
        if self._given is not None:
            return self._given
        if self._everything:
            tokens = row[real.to(row.device)].tolist()
        else:
            tokens = self._written.hide(row, real, spans)
        if self._template is None:
            found = [token for token in tokens if token not in self._special]
        else:
            found = self._outside_template(tokens)
        if not found:
            raise ValueError(
                f"the question is empty: of the prompt's {len(tokens)} tokens none is left without "
                "visual placeholders, padding, special and template tokens; pass query= (a text, "
                'token ids or "all")'
            )
        return found

    def _outside_template(self, tokens: list[int]) -> list[int]:
        found: list[int] = []
        segment: list[int] = []
        for token in (*tokens, None):
            if token is not None and token not in self._special:
                segment.append(token)
                continue
            found += self._written.strip(segment, self._template.strip(segment))
            segment = []
        return found


def _special_ids(parts: Parts, tokenizer) -> set[int]:
    model = parts.model
    configs = [model.config, getattr(model.config, "text_config", None)]
    configs.append(getattr(model, "generation_config", None))
    ids: set[int] = set()
    for config in configs:
        for name in (*_SPECIAL_IDS, *parts.spec.marks):
            value = getattr(config, name, None)
            ids.update(
                value if isinstance(value, list | tuple) else () if value is None else (value,)
            )
    # Not all are listed as such: Idefics3's processor replaces the list by three of its own.
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    ids.update(token for token, what in added.items() if what.special)
    return ids | set(getattr(tokenizer, "all_special_ids", None) or ())


def _describe(tokenizer, template) -> str:
    if tokenizer is None:
        return "prompt without special tokens (no tokenizer given: template words count)"
    if template is None:
        return "prompt without special tokens (no usable chat template: its words count)"
    return "prompt without special and template tokens"


def _tokenize(text: str, tokenizer) -> list[int]:
    if tokenizer is None:
        raise ValueError("query: got a text, allowed only with tokenizer= (or pass token ids)")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # Special ids among them stand for words that the tokenizer does not know: they say nothing.
    known = [token for token in ids if token not in tokenizer.all_special_ids]
    if not known:
        raise ValueError(f"query: the question is empty: {text!r} has no tokens that are words")
    return known


def _check_ids(query, model) -> list[int]:
    if not isinstance(query, Iterable):
        raise TypeError(
            f'query: got {query!r}, allowed is None, "question", "all", a text or token ids'
        )
    if isinstance(query, np.ndarray):
        query = _arrays.plain("query", query)
    ids = query.tolist() if hasattr(query, "tolist") else list(query)
    if not isinstance(ids, list):
        raise TypeError(f"query: got {query!r}, allowed is one dimension of token ids")
    if not ids:
        raise ValueError("query: the question is empty: got no token ids")
    size = model.get_input_embeddings().weight.shape[0]
    for token in ids:
        if not _checks.is_integer(token):
            raise TypeError(f"query: got {token!r} among the token ids, allowed are integers")
        if not 0 <= token < size:
            raise ValueError(f"query: got token id {token}, allowed are 0 to {size - 1}")
    return [int(token) for token in ids]
