"""Generation without a cache: every step repeats the prompt, with one more token.

What was chosen for a prompt lasts to its end, whatever other forwards the model makes in between:
of other pictures (contrastive decoding), of text alone (guidance), of the same prompt again. So all
prompts in progress are remembered, and a forward belongs to one of them if each of its rows, or
each without its last token, was a row of that prompt before.
"""

import hashlib
import threading
import weakref
from collections import deque

import torch

from .call import Call
from .fingerprint import Likeness, version

# So many are remembered, those used last; each takes a bool a column and a few bytes a step.
_MOST = 256


class IdRows:
    """The token ids of a call, as short numbers that tell rows apart."""

    def __init__(self, ids: torch.Tensor):
        """ids: int64 (B, L)."""
        self.ids = ids.detach().cpu()
        self.length = self.ids.shape[1]
        self.whole = [_digest(row) for row in self.ids]
        self.before = [_digest(row[:-1]) for row in self.ids]


def _digest(row: torch.Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()


class _Picture:
    """One tensor of pixels or features: generate passes the same one at every step, others copy."""

    def __init__(self, x: torch.Tensor):
        self._given = weakref.ref(x)
        self._version = version(x)
        self._likeness = Likeness(x)

    def is_in(self, x: torch.Tensor) -> bool:
        untouched = self._given() is x and version(x) == self._version
        return untouched or self._likeness.fits(x)


class _Prompt:
    """One prompt without a cache."""

    def __init__(self, call: Call, rows: IdRows, real: torch.Tensor, keep: torch.Tensor):
        self._pictures = [_Picture(x) for x in call.vision_tensors()]
        # Beams of one prompt trade places, so equal rows share what was seen.
        shared: dict[bytes, set[bytes]] = {}
        self._seen = [shared.setdefault(digest, {digest}) for digest in rows.whole]
        self._real = real
        self._keep = keep

    def goes_on_in(self, call: Call, rows: IdRows, real: torch.Tensor) -> bool:
        """Whether the call repeats this prompt, with more tokens after it."""
        length = self._keep.shape[1]
        if len(rows.whole) != len(self._seen) or rows.length <= length:
            return False
        known = zip(self._seen, rows.before, rows.whole, strict=True)
        if not all(before in seen or whole in seen for seen, before, whole in known):
            return False
        pictures = call.vision_tensors()
        return (
            len(pictures) == len(self._pictures)
            and torch.equal(real[:, :length].to(self._real.device), self._real)
            and all(old.is_in(new) for old, new in zip(self._pictures, pictures, strict=True))
        )

    def extend(self, rows: IdRows) -> torch.Tensor:
        """Bool (B, L): the prompt's choice, and everything after it."""
        for seen, digest in zip(self._seen, rows.whole, strict=True):
            seen.add(digest)
        more = self._keep.new_ones(self._keep.shape[0], rows.length - self._keep.shape[1])
        return torch.cat([self._keep, more], dim=1)


class RepeatedPrompts:
    """The prompts in progress. Threads share them: a pool may give each step to another thread."""

    def __init__(self):
        self._prompts: deque[_Prompt] = deque(maxlen=_MOST)
        self._lock = threading.Lock()

    def add(self, call: Call, rows: IdRows, real: torch.Tensor, keep: torch.Tensor) -> None:
        """Notes what was chosen.

        Args:
            call: the forward of the prompt.
            rows: its ids.
            real: bool (B, L), False for padding.
            keep: bool (B, P), P <= L: False for dropped columns. Those after P were generated.
        """
        prompt = _Prompt(call, rows, real[:, : keep.shape[1]].clone(), keep)
        with self._lock:
            self._prompts.append(prompt)

    def continued(self, call: Call, rows: IdRows, real: torch.Tensor) -> torch.Tensor | None:
        """Bool (B, L), the choice of the prompt that the call repeats; None for a new prompt."""
        with self._lock:
            for prompt in reversed(self._prompts):
                if prompt.goes_on_in(call, rows, real):
                    self._prompts.remove(prompt)
                    self._prompts.append(prompt)
                    return prompt.extend(rows)
        return None
