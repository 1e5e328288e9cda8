"""Generation without a cache: every step repeats the prompt, with one more token."""

import weakref

import torch

from .call import Call


class RepeatedPrompt:
    """The latest uncached prompt, to recognise its repetition with one more token."""

    def __init__(self, call: Call, keep: torch.Tensor):
        self._ids = call.input_ids
        self._vision = [weakref.ref(x) for x in call.vision_tensors()]
        self._keep = keep
        self._length = keep.shape[1]

    def goes_on_in(self, call: Call) -> bool:
        """Whether these are the same prompt and images, one token longer than last time."""
        vision = call.vision_tensors()
        return (
            call.input_ids.shape == (self._keep.shape[0], self._length + 1)
            and len(vision) == len(self._vision)
            and all(old() is new for old, new in zip(self._vision, vision, strict=True))
            and torch.equal(call.input_ids[:, : self._keep.shape[1]], self._ids)
        )

    def extend(self, call: Call) -> torch.Tensor:
        """Bool (B, L): the prompt's choice, and everything after it."""
        self._length = call.input_ids.shape[1]
        more = self._keep.new_ones(self._keep.shape[0], self._length - self._keep.shape[1])
        return torch.cat([self._keep, more], dim=1)
