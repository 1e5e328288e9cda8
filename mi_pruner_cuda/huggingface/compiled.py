"""Forward hooks and torch.compile."""

import torch


def outside(hook):
    """The hook, a method, run by Python between compiled graphs: what it does depends on data."""
    wrapped = torch.compiler.disable(hook)
    wrapped.mipruner_owner = hook.__self__
    return wrapped


def owner(hook):
    """The pruner whose hook this is; None for anybody else's."""
    return getattr(hook, "mipruner_owner", None)


def forget() -> None:
    """Has whatever is compiled in this process compiled again at its next call.

    Compiled code does not look for hooks that came or went since, and a module does not know what
    compiled code it is part of.
    """
    torch._dynamo.reset()
