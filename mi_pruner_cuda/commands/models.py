"""models: the table of models that attach knows, and what is tested of each."""

import importlib.util

from .errors import UserError
from .streams import say

HELP = "prints the models that attach knows, and what is tested of each"
_TESTED = """
Tested on each, with random weights: in both kinds of attention keep = 1.0 changes no bit, and
keep = 0.25 equals a run gathered by hand (embeddings, positions, masks, DeepStack); in the first,
generation with a cache, dynamic or static, equals generation without, beams and sampling too; a
batch equals its items; detach restores the model. python_tests/test_model_classes.py
Another model works if it puts image rows in the place of config.image_token_id before it calls
model.language_model: each run of placeholders is then an image. Else attach says what is missing.\
"""
_ROW = "{:<17} {:<20} {:<7} {:<7} {:<12} {}"


def add_arguments(parser) -> None:
    """None."""


def run(arguments) -> None:
    """Prints one line per model."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"needs {package}: pip install 'mi_pruner_cuda[transformers]'")
    from ..huggingface import MODELS

    say(_ROW.format("model_type", "name", "images", "videos", "attention", "notes").rstrip())
    for spec in MODELS.values():
        videos = "yes" if spec.videos else "-"
        attention = ", ".join(spec.attentions)
        line = _ROW.format(spec.model_type, spec.name, "yes", videos, attention, spec.notes)
        say(line.rstrip())
    say(_TESTED)
