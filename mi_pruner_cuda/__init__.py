"""Keeps the visual tokens that carry information about the question.

Imports without torch, transformers and matplotlib: what needs them is loaded when it is first used.
Where torch is installed, importing this package registers torch.ops.mipruner.*.
"""

import importlib
import importlib.util
import warnings
from typing import TYPE_CHECKING

from ._version import __version__
from .budget import Mass, keep_count
from .selection import Selection, select

if TYPE_CHECKING:
    from . import critic, distributed, engine, numpy, ops, reference
    from .c_library import get_cmake_dir, get_include, get_library_dir
    from .critic import Critic, calibrate
    from .html_page import write_html
    from .huggingface import attach
    from .plotting import plot

# Public names that are loaded on first use: the module that holds each, "" for a module itself.
_LAZY = {
    "Critic": "critic",
    "attach": "huggingface",
    "calibrate": "critic",
    "get_cmake_dir": "c_library",
    "get_include": "c_library",
    "get_library_dir": "c_library",
    "plot": "plotting",
    "write_html": "html_page",
    "critic": "",
    "distributed": "",
    "engine": "",
    "numpy": "",
    "ops": "",
    "reference": "",
}

__all__ = [
    "Critic",
    "Mass",
    "Selection",
    "__version__",
    "attach",
    "calibrate",
    "critic",
    "distributed",
    "engine",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "keep_count",
    "numpy",
    "ops",
    "plot",
    "reference",
    "select",
    "write_html",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_LAZY[name] or name}", __name__)
    value = getattr(module, name) if _LAZY[name] else module
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))


def _register_ops():
    """Registers the torch ops, or says why not: NumPy hosts may have a torch that does not suit."""
    if importlib.util.find_spec("torch") is None:
        return
    try:
        importlib.import_module(".ops", __name__)
    except ImportError as error:
        warnings.warn(f"torch.ops.mipruner is not available: {error}", RuntimeWarning, stacklevel=3)


_register_ops()
