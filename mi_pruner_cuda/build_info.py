"""What this installation can do."""

import importlib.util
from importlib import metadata
from pathlib import Path

from . import _C


def build_info() -> dict:
    """Version, compiler and CPU levels of the native code, and whether the torch ops are there.

    Does not import torch. `torch_ops` says that the library was built, `torch` which torch is
    installed.
    """
    info = _C.build_info()
    info["torch_ops"] = Path(__file__).with_name("_ops.so").is_file()
    info["torch"] = None
    if importlib.util.find_spec("torch") is not None:
        try:
            info["torch"] = metadata.version("torch")
        except metadata.PackageNotFoundError:
            info["torch"] = "unknown version"
    return info
