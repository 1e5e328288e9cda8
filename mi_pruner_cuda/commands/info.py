"""info: what this installation can do."""

from importlib import metadata

from ..build_info import build_info
from .streams import say

HELP = "prints versions, CPU level, CUDA, torch ops and the models that can be pruned"


def add_arguments(parser) -> None:
    """None."""


def run(arguments) -> None:
    """Prints one line per fact. Works without torch and transformers."""
    build = build_info()
    say(f"mi_pruner_cuda   {build['version']} ({build['compiler']}, {build['flags']})")
    say(f"CPU level        {build['cpu_level']} (available: {', '.join(build['cpu_levels'])})")
    say(f"CUDA kernels     {'built' if build['has_cuda'] else 'not built'}")
    say(f"torch            {build['torch'] or 'not installed'}")
    say(f"torch ops        {_torch_ops(build)}")
    say(f"transformers     {_version('transformers') or 'not installed'}")
    say(f"matplotlib       {_version('matplotlib') or 'not installed'}")
    say(f"models           {_models(build)}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_ops(build: dict) -> str:
    if not build["torch_ops"]:
        return "not built"
    if build["torch"] is None:
        return "built, but torch is not installed"
    import torch

    loaded = hasattr(torch.ops.mipruner, "select")
    return "torch.ops.mipruner.*" if loaded else "built, but not loaded with this torch"


def _models(build: dict) -> str:
    if build["torch"] is None or _version("transformers") is None:
        return "none: attach needs torch and transformers"
    from ..huggingface import MODELS

    return ", ".join(sorted(MODELS))
