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


def check_unhooked(*modules: nn.Module) -> None:
    """Refuses modules that have hooks of ours.

    Raises:
        RuntimeError.
    """
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            if getattr(hook, "mipruner_module", None) is module:
                raise RuntimeError("model: it already has a pruner; call that one's detach() first")


def forget() -> None:
    """Has whatever is compiled in this process compiled again at its next call.

    Compiled code does not look for hooks that came or went since, and a module does not know what
    compiled code it is part of.
    """
    torch._dynamo.reset()
