"""The models that the checks ask for, by folder name."""

import shutil
import subprocess
from pathlib import Path

from tiny_gguf import KINDS, Shape, write_demo_vlm, write_pair

from mi_pruner_cuda import demo

_OWN_TYPES = ("f16", "bf16", "q8_0")  # stored by the writer
_K_QUANTS = ("q4_K", "q6_K")  # stored by llama.cpp


def write_models(folder: Path, llama_source: Path, quantize: Path) -> None:
    """Writes every model into a folder of its own.

    Args:
        folder: where.
        llama_source: a folder of llama.cpp's source, for its vocabularies.
        quantize: the program built from csrc/tests/llama_cpp/quantize.cpp.
    """
    llava = KINDS["llava"]
    for kind in KINDS.values():
        write_pair(kind, folder / kind.name, llama_source)
    for weight_type in _OWN_TYPES:
        name = folder / f"llava_{weight_type}"
        write_pair(llava, name, llama_source, weight_type=weight_type)
    write_pair(KINDS["gemma3"], folder / "gemma3_q8_0", llama_source, weight_type="q8_0")
    write_pair(llava, folder / "llava_narrow", llama_source, Shape(columns=128))
    for weight_type in _K_QUANTS:
        _quantize(quantize, folder / "llava", folder / f"llava_{weight_type}", weight_type)
    _mix(folder / "llava", folder / "llava_narrow", folder / "llava_mismatched")
    vocabulary = llama_source / "models" / f"ggml-vocab-{llava.vocabulary}.gguf"
    shutil.copy(vocabulary, folder / "llava" / "vocabulary.gguf")
    write_demo_vlm(demo.model_path(), folder / "demo")


def _quantize(program: Path, source: Path, target: Path, weight_type: str) -> None:
    target.mkdir()
    files = [str(folder / "model.gguf") for folder in (source, target)]
    subprocess.run([str(program), *files, weight_type], check=True)
    shutil.copy(source / "mmproj.gguf", target)


def _mix(model: Path, vision: Path, target: Path) -> None:
    """The text model of one pair with the projector of another."""
    target.mkdir()
    shutil.copy(model / "model.gguf", target)
    shutil.copy(vision / "mmproj.gguf", target)
