"""Forward hooks and torch.compile."""

import torch
from torch import nn

_NOT_EXPORTED = (
    "model: a pruner chooses by what is in the prompt, which no exported or traced program can; "
    "detach() it first"
)
_NOT_REPLICATED = (
    "model: DataParallel runs copies of it that no pruner is attached to; use one device, or "
    "DistributedDataParallel"
)


def outside(hook, module: nn.Module):
    """The hook of a module, run by Python between compiled graphs: what it does depends on data.

    On another module it does nothing: a copy made past __getstate__ has the hooks, but no pruner.
    """

    def run(called, *args):
        if getattr(called, "_is_replica", False):
            raise RuntimeError(_NOT_REPLICATED)
        if called is not module:
            return None
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise RuntimeError(_NOT_EXPORTED)
        return hook(called, *args)

    wrapped = torch.compiler.disable(run, reason=_NOT_EXPORTED)
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
