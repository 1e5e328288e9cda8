"""Second moments of rows, summed over pairs, and powers of them. float64."""

import torch


class SecondMoment:
    """The mean of x x^T over rows x that come bit by bit. Not centred: see calibration.py."""

    def __init__(self):
        self._sum, self._rows = None, 0

    def add(self, rows: torch.Tensor) -> None:
        """rows: float32 (n, D)."""
        rows = rows.double()
        product = rows.T @ rows
        self._sum = product if self._sum is None else self._sum + product
        self._rows += len(rows)

    @property
    def mean(self) -> torch.Tensor:
        """float64 (D, D)."""
        return self._sum / self._rows


class Spectrum:
    """Powers of a moment with a ridge; the moment is decomposed once for all strengths."""

    def __init__(self, moment: torch.Tensor):
        """moment: float64 (D, D), symmetric and not negative."""
        values, self._vectors = torch.linalg.eigh(moment)
        self._values = values.clamp_min(0)  # rounding leaves tiny negative ones

    def power(self, exponent: float, strength: float) -> torch.Tensor:
        """(moment + strength * its mean eigenvalue * I)^exponent, float64 (D, D)."""
        values = self._values + strength * self._values.mean()
        return self._vectors * values**exponent @ self._vectors.T
