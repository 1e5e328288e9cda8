"""whitening: both sides made white by their own rows, then turned onto each other."""

from functools import cached_property

import torch

from .bags import BagMethod
from .moments import SecondMoment, Spectrum

_RANK = 1e-9  # singular values below this share of the largest are rounding


class Whitening(BagMethod):
    """A = C_tt^(-1/2) R C_vv^(-1/2), with the second moments of single rows (each with its ridge)
    and R the orthogonal map that brings the whitened bags of pictures closest to those of their
    texts: R = U V^T, from the singular value decomposition U S V^T of C_tt^(-1/2) C_tv C_vv^(-1/2).
    With fewer pairs than dimensions R covers the directions that the pairs span.

    Pairs are needed for R alone; what whitens are the rows, of which there are many more.

    Schoenemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31
    (1966).
    """

    def __init__(self):
        super().__init__()
        self._rows, self._words = SecondMoment(), SecondMoment()

    def add(self, pair) -> None:
        """pair: observe.Observation."""
        super().add(pair)
        self._rows.add(pair.visual)
        self._words.add(pair.text)

    @cached_property
    def _sides(self) -> tuple[Spectrum, Spectrum]:
        """Text, picture."""
        return Spectrum(self._words.mean), Spectrum(self._rows.mean)

    def fit(self, strength: float) -> torch.Tensor:
        """float64 (D, D)."""
        text, visual = (side.power(-0.5, strength) for side in self._sides)
        return text @ _turn(text @ self.text_bags.T, visual @ self.visual_bags.T) @ visual


def _turn(text: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """R for the columns of (D, P) and (D, P), through factors of min(D, P) columns."""
    of_text, text = torch.linalg.qr(text)
    of_visual, visual = torch.linalg.qr(visual)
    left, values, right = torch.linalg.svd(text @ visual.T)
    rank = int((values > _RANK * values[0]).sum())
    return of_text @ (left[:, :rank] @ right[:rank]) @ of_visual.T
