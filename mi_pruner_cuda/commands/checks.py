"""What the commands refuse before a model is loaded for it."""

import importlib.util

from .errors import UserError

_PACKAGES = {"torch": "torch", "transformers": "transformers", "PIL": "Pillow"}


def check_installed(*modules: str) -> None:
    """Refuses to go on without one of these; keys of _PACKAGES."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"needs {_PACKAGES[module]}: pip install 'mi_pruner_cuda[demo]'")


def check_file(option: str, path: str, check) -> None:
    """check: raises for a path that cannot be written, which it calls "path"."""
    try:
        check(path)
    except (OSError, ValueError) as error:
        raise UserError(str(error).replace("path:", f"{option}:", 1)) from error


def check_device(device: str) -> None:
    """Refuses a device that torch does not have."""
    import torch

    try:
        torch.empty(0, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter: a torch without CUDA
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"device: {device} is not available: {first}") from error
