"""Writes both halves of a model into a folder."""

from pathlib import Path

from .kinds import Kind
from .mmproj import Tower, write_mmproj
from .text_model import Shape, write_text_model


def write_pair(
    kind: Kind,
    folder,
    llama_source,
    shape: Shape | None = None,
    tower: Tower | None = None,
    weight_type: str = "f32",
) -> Path:
    """Writes folder/model.gguf and folder/mmproj.gguf, and returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shape, tower = shape or Shape(), tower or Tower()
    write_text_model(kind, folder / "model.gguf", llama_source, shape, weight_type)
    write_mmproj(kind, folder / "mmproj.gguf", shape.columns, tower)
    return folder
