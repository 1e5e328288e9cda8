"""What the ranks must agree on before they compute, and how they fail together.

A rank that raises while the others wait for its next message hangs the group. So nothing is raised
before every rank has sent its header, and then every rank sees the same headers and raises the same
error, or none.
"""

import hashlib
import re
import struct
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import torch

from .. import _checks, ops
from ..budget import Mass, resolve
from ..critic.bilinear import apply_critic, fingerprint
from .wire import Wire

_KINDS = ("count", "ratio", "Mass")
_LARGEST = 2**63 - 1


# How a rank may fail: the kind of error that all ranks raise.
_ERRORS = {1: ValueError, 2: TypeError, 3: RuntimeError}


@dataclass(frozen=True)
class Call:
    """One rank's arguments, checked, the text's rows mapped by the critic if there is one. counted:
    bool (N_r), rows that are not masked; finite: bool (N_r), the counted rows without NaN and Inf;
    critic: its fingerprint; given_text: the text before it was mapped."""

    visual: torch.Tensor
    text: torch.Tensor
    keep: Any
    temperature: float
    estimator: str
    counted: torch.Tensor
    finite: torch.Tensor
    critic: int
    given_text: torch.Tensor
    coverage: float


@dataclass(frozen=True)
class Header:
    """A Call in int64 numbers; floats and the text's hash travel as their bits. failed: 0, or a key
    of _ERRORS."""

    failed: int
    rows: int = 0
    finite: int = 0
    dtype: int = 0
    width: int = 0
    words: int = 0
    keep_kind: int = 0
    keep_value: int = 0
    temperature: int = 0
    estimator: int = 0
    text: int = 0
    critic: int = 0
    coverage: int = 0

    def pack(self) -> torch.Tensor:
        return torch.tensor(list(asdict(self).values()), dtype=torch.int64, device="cpu")


def agree(wire: Wire, visual, text, keep, temperature, estimator, visual_mask, critic, coverage):
    """Checks this rank's arguments and exchanges headers.

    Returns:
        the Call of this rank, and the Headers of all.

    Raises:
        TypeError, ValueError: an argument is wrong on some rank or differs between ranks; the same
            error on every rank.
    """
    call, error, header = None, None, None
    try:
        call = _check(visual, text, keep, temperature, estimator, visual_mask, critic, coverage)
        header = _describe(call)
    except Exception as raised:  # whatever it is, the others must hear of it
        error = raised
        failed = next((f for f, kind in _ERRORS.items() if isinstance(raised, kind)), 3)
        header = Header(failed)
    headers = [Header(*row) for row in wire.gather(header.pack()).tolist()]
    if any(header.failed for header in headers):
        _raise_together(wire, headers, error)
    _check_equal(headers)
    return call, headers


def _check(visual, text, keep, temperature, estimator, visual_mask, critic, coverage) -> Call:
    """Raises TypeError or ValueError, naming the argument, for what one rank can see alone."""
    try:
        ops.check_relevance(visual, text, visual_mask, None, temperature, estimator)
    except (TypeError, ValueError) as error:  # it knows the first argument by another name
        raise type(error)(re.sub(r"^visual\b", "visual_shard", str(error))) from None
    if visual.dim() != 2:
        raise ValueError(
            f"visual_shard: got shape {tuple(visual.shape)}, allowed is (N_r, D); select the items "
            "of a batch one by one"
        )
    if text.shape[0] == 0:
        raise ValueError(
            "text: got 0 rows, allowed is at least 1: the text-free mode compares every pair of "
            "visual rows, which a shard does not hold"
        )
    if not isinstance(keep, Mass):
        resolve(keep, 1)
    _checks.share("coverage", coverage)
    counted = visual_mask
    if counted is None:
        counted = torch.ones(visual.shape[0], dtype=torch.bool, device=visual.device)
    finite = counted & visual.isfinite().all(1)
    mapped = text if critic is None else apply_critic(critic, text)
    return Call(
        visual, mapped, keep, temperature, estimator, counted, finite, fingerprint(critic), text,
        coverage,
    )  # fmt: skip


def _describe(call: Call) -> Header:
    kind, value = _pack_keep(call.keep)
    return Header(
        failed=0,
        rows=call.visual.shape[0],
        finite=int(call.finite.sum()),
        dtype=ops.ROW_DTYPES.index(call.visual.dtype),
        width=call.visual.shape[1],
        words=call.text.shape[0],
        keep_kind=kind,
        keep_value=value,
        temperature=_bits(call.temperature),
        estimator=_checks.ESTIMATORS.index(call.estimator),
        # Of what was given: ranks may round the mapped rows in different ways.
        text=_checksum(call.given_text),
        critic=call.critic,
        coverage=_bits(call.coverage),
    )


def _check_equal(headers: list[Header]) -> None:
    """The arguments that must not differ, each by its name and its values."""
    _same("visual_shard: dtype", headers, lambda h: ops.ROW_DTYPES[h.dtype], TypeError)
    _same("visual_shard: row width", headers, lambda h: h.width)
    _same("text: rows", headers, lambda h: h.words)
    _same("keep:", headers, _unpack_keep)
    _same("temperature:", headers, lambda h: _float(h.temperature))
    _same("estimator:", headers, lambda h: _checks.ESTIMATORS[h.estimator])
    _same("coverage:", headers, lambda h: _float(h.coverage))
    _same("critic: hash of the bits", headers, lambda h: f"{h.critic & (2**64 - 1):016x}")
    _same("text: values (hash of the bits)", headers, lambda h: f"{h.text & (2**64 - 1):016x}")


def _same(what: str, headers: list[Header], value, kind=ValueError) -> None:
    values = [value(header) for header in headers]
    if any(other != values[0] for other in values):
        listed = ", ".join(f"{v} on rank {r}" for r, v in enumerate(values))
        raise kind(f"{what} got {listed}; allowed is the same on every rank")


def _raise_together(wire: Wire, headers: list[Header], error) -> None:
    """The error of the first rank that failed; who failed is said where not all did."""
    messages = wire.gather_words(str(error or ""))
    first = next(r for r, header in enumerate(headers) if header.failed)
    where = "" if all(m == messages[0] for m in messages) else f" (on rank {first} of the group)"
    raise _ERRORS[headers[first].failed](messages[first] + where) from error


def _pack_keep(keep) -> tuple[int, int]:
    if isinstance(keep, Mass):
        return 2, _bits(keep.share)
    if isinstance(keep, Integral):
        return 0, min(int(keep), _LARGEST)
    return 1, _bits(keep)


def _unpack_keep(header: Header) -> str:
    kind = _KINDS[header.keep_kind]
    value = header.keep_value if kind == "count" else _float(header.keep_value)
    return f"{kind} {value}"


def _bits(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", float(value)))[0]


def _float(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<q", bits))[0]


def _checksum(x: torch.Tensor) -> int:
    """A 64-bit hash of the bits, as a signed number."""
    data = x.detach().resolve_neg().contiguous().flatten().view(torch.uint8).cpu().numpy()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
