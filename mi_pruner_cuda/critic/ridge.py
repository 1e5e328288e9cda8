"""ridge: the text's bag, predicted from the picture's."""

from functools import cached_property

import torch

from .bags import BagMethod
from .moments import Spectrum


class Ridge(BagMethod):
    """A = C_tv (C_vv + lambda I)^-1, which minimises the mean of |t - A v|^2 + lambda |A|^2 over
    pairs of bags. C_tv = mean of t v^T, C_vv = mean of v v^T.
    """

    @cached_property
    def _spectrum(self) -> Spectrum:
        visual = self.visual_bags
        return Spectrum(visual.T @ visual / len(visual))

    def fit(self, strength: float) -> torch.Tensor:
        """float64 (D, D)."""
        return self.cross @ self._spectrum.power(-1, strength)
