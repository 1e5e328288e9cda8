"""Short numbers that tell tensors apart by their bits, without waiting for the device."""

import torch

_CHUNK = 1 << 22  # elements at a time: what is worked on takes 8 bytes each
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Odd 64-bit constants of splitmix64: their products reach every bit of a sum.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MIX = 0xBF58476D1CE4E5B9 - 2**64


def of_rows(x: torch.Tensor) -> torch.Tensor:
    """int64 (B): for each row of a (B, ...) tensor a weighted sum of its bits, modulo 2^64.

    Every place has an odd weight of its own. Rows with the same bits have the same number in every
    run; rows that differ in one element never do, and others with a chance of about 2^-64. Integers
    add up to the same in any order, so it does not matter how a device splits the work.
    """
    x = x.detach()
    x = torch.view_as_real(x) if x.is_complex() else x
    bits = x.reshape(x.shape[0], -1).contiguous()
    if bits.dtype != torch.bool:
        bits = bits.view(_INTEGERS[bits.element_size()])
    total = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    for begin in range(0, bits.shape[1], _CHUNK):
        chunk = bits[:, begin : begin + _CHUNK].to(torch.int64)
        place = torch.arange(begin, begin + chunk.shape[1], device=x.device, dtype=torch.int64)
        weight = place * _STEP
        weight = ((weight ^ (weight >> 30)) * _MIX) | 1
        total += (chunk * weight).sum(1, dtype=torch.int64)
    return total


def version(x: torch.Tensor) -> int | None:
    """How often a tensor was changed in place; None where torch does not count (inference mode)."""
    return None if x.is_inference() else x._version


class Likeness:
    """What a tensor was: its shape, dtype and bits. The tensor itself is not kept."""

    def __init__(self, x: torch.Tensor):
        self._kind = (x.shape, x.dtype)
        self._number = of_rows(x[None])

    def fits(self, x: torch.Tensor) -> bool:
        """Whether a tensor, on any device, has the same shape, dtype and bits."""
        if (x.shape, x.dtype) != self._kind:
            return False
        return bool(of_rows(x[None]).to(self._number.device).equal(self._number))
