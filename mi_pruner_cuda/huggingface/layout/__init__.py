"""How the placeholders of a prompt make up images, videos, tiles and frames.

A layout is a function (scene, kind, visual) -> list of Shape, one per image or video of the batch,
in the order of their placeholders. Each model of the table names two: one for images, one for
videos. They read what the call states (features, pixels, grids), what the ids show (runs of
placeholders and the tokens between them), positions, and the value of learned row breaks; never
config.model_type. Their docstrings name the classes that they were written for.
"""

from .frames import even_frames, frames_and_a_break, frames_with_class_row
from .resolutions import any_resolution, grids, rows_by_break, same_size_or_rows
from .scene import Run, Scene, Shape, runs_of
from .tiles import runs, same_size, tiles_by_mark, tiles_in_a_row, tiles_in_rows

__all__ = [
    "Run",
    "Scene",
    "Shape",
    "any_resolution",
    "even_frames",
    "frames_and_a_break",
    "frames_with_class_row",
    "grids",
    "rows_by_break",
    "runs",
    "runs_of",
    "same_size",
    "same_size_or_rows",
    "tiles_by_mark",
    "tiles_in_a_row",
    "tiles_in_rows",
]
