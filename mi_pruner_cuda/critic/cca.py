"""cca: the directions in which the bags of a picture and its text go together."""

from functools import cached_property

import torch

from .bags import BagMethod
from .moments import Spectrum


class CanonicalCorrelation(BagMethod):
    """<A v, t> = sum_c s_c (a_c . v)(b_c . t), with the canonical directions a_c, b_c and their
    correlations s_c: A = W_t U diag(s) V^T W_v, where W = (C + lambda I)^(-1/2) whitens a side and
    U diag(s) V^T is the singular value decomposition of W_t C_tv W_v.

    Hotelling, "Relations between two sets of variates", Biometrika 28 (1936); the ridge is Vinod's,
    "Canonical ridge and econometrics of joint production", J. Econometrics 4 (1976).
    """

    @cached_property
    def _sides(self) -> tuple[Spectrum, Spectrum]:
        """Text, picture."""
        sides = self.text_bags, self.visual_bags
        text, visual = (Spectrum(bags.T @ bags / len(bags)) for bags in sides)
        return text, visual

    def fit(self, strength: float) -> torch.Tensor:
        """float64 (D, D)."""
        text, visual = self._sides
        # U diag(s) V^T is the product that it decomposes, so A = W_t^2 C_tv W_v^2.
        return text.power(-1, strength) @ self.cross @ visual.power(-1, strength)
