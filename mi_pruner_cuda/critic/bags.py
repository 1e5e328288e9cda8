"""A pair as two vectors: the mean of a picture's unit rows, the mean of its text's unit rows."""

import torch

from .sample import Sample


class BagMethod:
    """What methods that see bags have in common. A subclass has fit(strength) -> A, float64."""

    looks_at_attention = False
    measure = "standard deviations between own and other texts"

    def __init__(self):
        self._visual: list[torch.Tensor] = []
        self._text: list[torch.Tensor] = []
        self._sample = Sample()

    def add(self, pair) -> None:
        """pair: observe.Observation."""
        self._visual.append(pair.visual.double().mean(0))
        self._text.append(pair.text.double().mean(0))
        self._sample.add(pair)

    def score(self, matrix: torch.Tensor) -> float:
        """How well A fits these pairs; larger is better."""
        return self._sample.matching(matrix)

    @property
    def chance(self) -> float:
        """A score that says nothing: three standard deviations of that of unrelated pairs."""
        return 3 / len(self._sample.pairs) ** 0.5

    @property
    def visual_bags(self) -> torch.Tensor:
        """float64 (P, D)."""
        return torch.stack(self._visual)

    @property
    def text_bags(self) -> torch.Tensor:
        """float64 (P, D)."""
        return torch.stack(self._text)

    @property
    def cross(self) -> torch.Tensor:
        """float64 (D, D): the mean of t v^T over pairs of bags."""
        return self.text_bags.T @ self.visual_bags / len(self._visual)
