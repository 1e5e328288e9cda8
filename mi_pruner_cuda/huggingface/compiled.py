"""Forward hooks and torch.compile."""

import sys

import torch
from torch import nn


def outside(hook):
    """The hook, a method, run by Python between compiled graphs: what it does depends on data."""
    wrapped = torch.compiler.disable(hook)
    wrapped.mipruner_owner = hook.__self__
    return wrapped


def owner(hook):
    """The pruner whose hook this is; None for anybody else's."""
    return getattr(hook, "mipruner_owner", None)


def forget(model: nn.Module) -> None:
    """Has a compiled model compiled again at its next call: compiled code does not look for hooks
    that came or went since.
    """
    if "torch._dynamo" in sys.modules and any(map(_is_compiled, model.modules())):
        torch._dynamo.reset()


def _is_compiled(module: nn.Module) -> bool:
    # compile() in place, torch.compile of the forward, torch.compile of the module, and what
    # generate does to a model by itself with a static cache on a GPU.
    return (
        getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        or "_orig_mod" in module._modules
        or "_compiled_call" in vars(module)
    )
