"""A GGUF file in the making: named tensors of random, seeded numbers."""

import math

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

WEIGHT_TYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}


class Tensors:
    """Adds tensors to a file, and writes it on close().

    Args:
        path: the file.
        architecture: llama.cpp's name of the architecture.
        seed: of the random numbers.
        weight_type: a key of WEIGHT_TYPES: how matrices are stored. Vectors are always float32.
    """

    def __init__(self, path, architecture: str, seed: int, weight_type: str = "f32"):
        self.writer = gguf.GGUFWriter(str(path), architecture)
        self._random = np.random.default_rng(seed)
        self._type = WEIGHT_TYPES[weight_type]

    def add(self, name: str, values: np.ndarray, exact: bool = False) -> None:
        """Adds values in NumPy's order (out, in); exact: as float32 whatever the weight type."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        if values.ndim == 1 or exact or self._type == Type.F32:
            self.writer.add_tensor(name, values)
        else:
            stored = gguf.quants.quantize(values, self._type)
            self.writer.add_tensor(name, stored, raw_dtype=self._type)

    def random(self, name: str, *shape: int, scale: float = 1.0, exact: bool = False) -> None:
        """Adds normal numbers that keep the size of what they are multiplied with, times scale."""
        spread = np.float32(scale / math.sqrt(math.prod(shape[1:])))
        self.add(name, self._random.standard_normal(shape, dtype=np.float32) * spread, exact)

    def vector(self, name: str, size: int, spread: float) -> None:
        """Adds a vector of normal numbers."""
        self.add(name, self._random.standard_normal(size, dtype=np.float32) * np.float32(spread))

    def near_one(self, name: str, size: int) -> None:
        """Adds a norm's weight: not all ones, so that leaving it out shows."""
        self.add(name, 1 + 0.1 * self._random.standard_normal(size, dtype=np.float32))

    def linear(self, name: str, outputs: int, inputs: int, scale: float = 1.0) -> None:
        """Adds the weight and the bias of a linear layer."""
        self.random(f"{name}.weight", outputs, inputs, scale=scale)
        self.vector(f"{name}.bias", outputs, 0.02 * scale)

    def layer_norm(self, name: str, size: int, bias: bool = True) -> None:
        """Adds the weight of a norm, and its bias."""
        self.near_one(f"{name}.weight", size)
        if bias:
            self.vector(f"{name}.bias", size, 0.02)

    def close(self) -> None:
        """Writes the file."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
