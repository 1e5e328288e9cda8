"""Critic: s_ij = <A v_i, t_j> on unit vectors, as a change of the text rows alone.

<A v, t> = <v, A^T t>: mapping each text row to A^T t (M x D x D operations) leaves visual rows,
kernels, estimators and the redundancy between visual rows as they are. The kernels normalise the
mapped rows as any others, so each s_ij is the cosine between v_i and A^T t_j: how long A^T t_j is
does not count, and neither does the scale of A.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from .. import ops
from ..whole_file import write_file

FILE_NAME = "mipruner_critic.safetensors"  # beside a model's own files

_FORMAT, _VERSION = "mipruner-critic", "1"
_TENSOR = "critic"


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Critic:
    """A critic and how it was fitted.

    matrix: A, float32 (D, D); <A v, t> compares a visual row v with a text row t.
    method: "ridge", "cca", "whitening", "attention"; "given" for a matrix of one's own.
    pairs: how many pictures with texts it was fitted and checked on.
    model_type: config.model_type of the model that it was fitted for; "" for any.
    strength: of the regularisation, a share of the mean eigenvalue.
    fitted, held_out: the method's own measure of fit (calibrate says which) on the pairs that it
        was fitted on and on those held out.

    Raises:
        TypeError, ValueError: matrix is no float32 (D, D), or not finite.
    """

    matrix: torch.Tensor
    method: str = "given"
    pairs: int = 0
    model_type: str = ""
    strength: float | None = None
    fitted: float | None = None
    held_out: float | None = None
    _copies: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        _check_matrix("matrix", self.matrix)
        if not bool(self.matrix.isfinite().all()):
            raise ValueError("matrix: got NaN or Inf, allowed are finite numbers")
        self._copies[self.matrix.device] = self.matrix

    @property
    def width(self) -> int:
        """D."""
        return self.matrix.shape[0]

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of a hash of the matrix, signed: equal on processes that have the same one."""
        return _hash(self.matrix)

    def on(self, device) -> torch.Tensor:
        """The matrix on a device; copied there once."""
        device = torch.device(device)
        if device not in self._copies:
            self._copies[device] = self.matrix.to(device)
        return self._copies[device]

    def apply(self, text: torch.Tensor) -> torch.Tensor:
        """apply_critic with this matrix."""
        return apply_critic(self, text)

    def __str__(self) -> str:
        return f"{self.method}, {self.pairs} pairs" if self.pairs else self.method

    def save(self, path) -> None:
        """Writes a safetensors file: the matrix, and the rest as its metadata.

        Raises:
            OSError: the path cannot be written; a file that was there is then as it was.
        """
        from safetensors.torch import save

        metadata = {"format": _FORMAT, "version": _VERSION, "width": str(self.width)}
        for name, read in _METADATA.items():
            value = getattr(self, name)
            if value is not None:
                metadata[name] = value if read is str else repr(value)
        write_file(path, save({_TENSOR: self.matrix.cpu().contiguous()}, metadata))

    @classmethod
    def load(cls, path, device="cpu") -> "Critic":
        """Reads what save wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no critic, or one of another version.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"critic: there is no file {path}")
        try:
            with (
                _plain_file(path) as name,
                safe_open(name, framework="pt", device=str(device)) as file,
            ):
                metadata = file.metadata() or {}
                found = metadata.get("format"), metadata.get("version")
                if found != (_FORMAT, _VERSION):
                    raise ValueError(
                        f"format and version: got {found}, allowed is {(_FORMAT, _VERSION)}"
                    )
                matrix = file.get_tensor(_TENSOR)
            known = {name: read(metadata[name]) for name, read in _METADATA.items()
                     if name in metadata}  # fmt: skip
            return cls(matrix, **known)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"critic: {path} is not a critic: {error}") from error


@contextlib.contextmanager
def _plain_file(path: Path):
    """The path or, of a pipe, that of a copy: safetensors jumps about in a file."""
    if path.is_file() or path.is_dir():
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as copy:
        copy.write(path.read_bytes())
        copy.flush()
        yield Path(copy.name)


# What a file says beside the matrix: the field, and how its text is read.
_METADATA: dict[str, Callable] = {
    "method": str,
    "pairs": int,
    "model_type": str,
    "strength": float,
    "fitted": float,
    "held_out": float,
}


def apply_critic(critic, text: torch.Tensor) -> torch.Tensor:
    """A^T t of every text row: what to pass to the operators in place of the text rows.

    Computed in float32 as the unit vector of A^T unit(t), whatever the scale of A: half types would
    overflow otherwise. Masked rows cost nothing more than others. Differentiable no more than the
    operators. On the CPU a row's bits do not depend on the other rows; on CUDA its last
    bits may depend on how many rows there are. The matrix product is a float32 one and follows
    torch.set_float32_matmul_precision, not autocast.

    Args:
        critic: a Critic, or A itself, float32 (D, D) on the device of text.
        text: (M, D) or (B, M, D), float32, float16 or bfloat16.

    Returns:
        the same shape and dtype. Zero rows stay zero; rows that hold NaN or Inf become NaN.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
    """
    matrix = _matrix_for(critic, text)
    unit = ops.normalize(text.detach().float())
    rows = unit.reshape(-1, unit.shape[-1])
    alone = rows.shape[0] == 1
    if alone:
        # A product of one row is another routine with other rounding.
        rows = torch.nn.functional.pad(rows, (0, 0, 0, 1))
    with torch.autocast(text.device.type, enabled=False):
        mapped = rows @ matrix
    mapped = mapped[:1] if alone else mapped
    # Looked at in host memory only: elsewhere looking would wait for the device. One NaN or Inf in
    # the matrix spoils a column of the product.
    if mapped.device.type == "cpu" and not torch.compiler.is_compiling():
        spoilt = rows[: len(mapped)].isfinite() & ~mapped.isfinite()
        if bool(spoilt.any()):
            raise ValueError("critic: got NaN, Inf or numbers near them, allowed are finite ones")
    return ops.normalize(mapped.reshape(unit.shape)).to(text.dtype)


def fingerprint(critic) -> int:
    """64 bits, signed: equal for equal matrices; 0 for None."""
    if critic is None:
        return 0
    return critic.fingerprint if isinstance(critic, Critic) else _hash(critic)


def _matrix_for(critic, text: torch.Tensor) -> torch.Tensor:
    """The matrix on the device of the text, checked against it."""
    if isinstance(critic, Critic):
        matrix = critic.on(text.device)
    else:
        matrix = critic
        _check_matrix("critic", matrix)
        if matrix.device != text.device:
            raise ValueError(
                f"critic: got device {matrix.device}, allowed is that of the rows, {text.device}"
            )
    if matrix.shape[0] != text.shape[-1]:
        raise ValueError(
            f"critic: got width {matrix.shape[0]}, allowed is that of the rows, {text.shape[-1]}"
        )
    return matrix


def _check_matrix(name: str, matrix) -> None:
    if not isinstance(matrix, torch.Tensor):
        raise TypeError(
            f"{name}: got {type(matrix).__name__}, allowed is a Critic or a float32 (D, D) tensor"
        )
    ops.check_tensor(name, matrix)
    if matrix.dtype != torch.float32:
        raise TypeError(f"{name}: got dtype {matrix.dtype}, allowed is torch.float32")
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"{name}: got shape {tuple(matrix.shape)}, allowed is (D, D)")


def _hash(matrix: torch.Tensor) -> int:
    data = matrix.detach().resolve_neg().contiguous().cpu().numpy()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
