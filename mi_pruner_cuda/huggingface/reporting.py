"""Whose report is shown: that of generate's own prompt, whatever else the model is called for."""

import contextlib
import threading
from collections import deque

import torch

from .generating import Generation, running_generates
from .report import Report

_MOST_OTHERS = 256


class _Now(threading.local):
    """What is under way in each thread.

    generation: generate of transformers; None outside of it.
    own: whether the latest forward was the first one of that, or outside of any.
    nested: whether it was made by a generate within that one.
    others: where that generate's forwards put the reports of other prompts.
    """

    generation: Generation | None = None
    own: bool = True
    nested: bool = False
    others: deque | None = None


class Reporting:
    """The reports of one pruner.

    report: of the latest prefill; within generate of the prompt that it was given, or of the cache
        that it goes on with.
    others: of the prefills of other prompts while that generate was under way.
    """

    def __init__(self):
        self.report = Report()
        self.others: deque[Report] = deque(maxlen=_MOST_OTHERS)
        self._now = _Now()

    def begin_forward(self, model, ids: torch.Tensor | None, kept: Report | None) -> None:
        """Before a forward: whether it is generate's first one, and what that was given.

        Args:
            model: whose generate it may be.
            ids: int64 (B, L) of a whole prompt; None where a cache holds its beginning.
            kept: what that cache's prefill kept.
        """
        now, running = self._now, running_generates(model)
        now.nested = len(running) > 1
        if not running:
            now.generation, now.own = None, True
        elif now.generation is not None and now.generation.is_of(running[-1]):
            now.own = False
        else:
            now.generation = Generation(running[-1], None if ids is None else ids.detach().cpu())
            now.own = True
            if kept is not None:
                self.tell(kept)

    @property
    def begins_generate(self) -> bool:
        """Whether the forward is the first one of a generate: no step of an earlier prompt."""
        return self._now.own and self._now.generation is not None

    @contextlib.contextmanager
    def unmoved(self):
        """What a selector of the user's calls meanwhile is no part of the forward under way."""
        before = dict(vars(self._now))
        try:
            yield
        finally:
            vars(self._now).update(before)

    def tell(self, report: Report) -> None:
        """After a prefill's choice."""
        if self._now.own:
            self.report = report
            self.others = self._now.others = deque(maxlen=_MOST_OTHERS)
        elif self._now.others is not None:
            self._now.others.append(report)

    def prompt_length(self, ids: torch.Tensor) -> int:
        """How many columns of a forward are its prompt: generate's own words are no question.

        A logits processor may show the model what was generated so far beside another picture.

        Args:
            ids: int64 (B, L) on the processor.
        """
        # A generate within generate has a prompt of its own, whatever that begins with.
        own = self._now.own or self._now.nested
        generation = None if own else self._now.generation
        length = None if generation is None else generation.prompt_length(ids)
        return ids.shape[1] if length is None else length
