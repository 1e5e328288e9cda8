"""attention: what the model's own early attention compares, as one bilinear form.

The logit by which a text token attends to a visual token, before rotary positions and the softmax,
is a bilinear form of the two hidden states. Regressing it on the embeddings at the language model's
door keeps of it what the embeddings alone tell. Attention is looked at while calibrating, never
when pruning.
"""

from functools import cached_property

import torch

from .moments import SecondMoment, Spectrum
from .sample import Sample


class AttentionLogits:
    """A = (C_tt + a I)^-1 C_lv (C_vv + b I)^-1, the ridge solution of
    minimising sum_ij (l_ij - t_j^T A v_i)^2 over pairs.

    l_ij: mean over heads and layers of the logit from text token j to visual token i, less its mean
    over i, which the softmax does not see. C_lv = mean of l_ij t_j v_i^T; C_tt, C_vv the second
    moments of text and visual rows of all pairs, taken for those of each pair: exact when they are
    the same in every pair, and what makes the solution closed.

    Visual rows are not centred: the fit must then give the mean row the mean logit, 0, so that no
    word favours every row alike.
    """

    looks_at_attention = True
    measure = "correlation with the model's attention logits"

    def __init__(self):
        self._visual, self._text = SecondMoment(), SecondMoment()
        self._cross, self._entries = 0.0, 0
        self._sample = Sample()

    def add(self, pair) -> None:
        """pair: observe.Observation with logits."""
        logits = pair.logits.double()
        logits = logits - logits.mean(1, keepdim=True)
        self._visual.add(pair.visual)
        self._text.add(pair.text)
        self._cross = self._cross + pair.text.double().T @ (logits @ pair.visual.double())
        self._entries += logits.numel()
        self._sample.add(pair)

    @cached_property
    def _sides(self) -> tuple[Spectrum, Spectrum]:
        """Text, picture."""
        return Spectrum(self._text.mean), Spectrum(self._visual.mean)

    def fit(self, strength: float) -> torch.Tensor:
        """float64 (D, D)."""
        text, visual = (side.power(-1, strength) for side in self._sides)
        return text @ (self._cross / self._entries) @ visual

    def score(self, matrix: torch.Tensor) -> float:
        """The correlation of t_j^T A v_i with l_ij, each less its mean over i, over a sample."""
        return self._sample.correlation(matrix)

    @property
    def chance(self) -> float:
        """A score that says nothing."""
        return 0.05
