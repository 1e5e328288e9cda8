"""Forward hooks and torch.compile."""

import torch
from torch import nn


def outside(hook, module: nn.Module):
    """The hook of a module, run by Python between compiled graphs: what it does depends on data.

    On another module it does nothing: copying a model copies its hooks, but not their pruner.
    """

    def run(called, *args):
        return hook(called, *args) if called is module else None

    wrapped = torch.compiler.disable(run)
    wrapped.mipruner_module = module
    return wrapped


def is_ours(hook, module: nn.Module) -> bool:
    """Whether this is a hook that a pruner has on this module."""
    return getattr(hook, "mipruner_module", None) is module


def forget() -> None:
    """Has whatever is compiled in this process compiled again at its next call.

    Compiled code does not look for hooks that came or went since, and a module does not know what
    compiled code it is part of.
    """
    torch._dynamo.reset()
