"""Copies and pickles of a model with a pruner: they are made without it.

pickle, torch.save, copy and multiprocessing ask each module for its state by __getstate__, and take
the one in its own __dict__ before that of its class.
"""

import types

from torch import nn

_ASKED = "__getstate__"
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Beside each hook, under the same key, how it wants to be called.
_NOTES = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
# transformers puts hooks on its layers at the first forward, which pickle cannot save. A model
# without this mark gets them again when it needs them.
_CAPTURING = "transformers.utils.output_capturing"
_CAPTURED = "_output_capturing_hooks_installed"


def leave_hooks_out(model: nn.Module) -> None:
    """From now on, until put_back, copies and pickles of the model have none of our hooks."""
    for module in model.modules():
        vars(module)[_ASKED] = types.MethodType(_plain_state, module)


def put_back(model: nn.Module) -> None:
    """The model's modules are copied and pickled as their classes say again."""
    for module in model.modules():
        vars(module).pop(_ASKED, None)


def _plain_state(module: nn.Module):
    """What the module's class would give, without what attach put there."""
    own = getattr(type(module), _ASKED, None)
    by_default = own is None or own is getattr(object, _ASKED, None)  # Python 3.10 has none there
    state = vars(module) if by_default else own(module)
    if not isinstance(state, dict):
        return state
    state = {name: value for name, value in state.items() if name not in (_ASKED, _CAPTURED)}
    gone = {key for name in _HOOKS for key, hook in state.get(name, {}).items() if _goes(hook)}
    for name in (*_HOOKS, *_NOTES):
        if name in state:
            kept = state[name].copy()
            for key in gone & kept.keys():
                del kept[key]
            state[name] = kept
    return state


def _goes(hook) -> bool:
    return hasattr(hook, "mipruner_module") or getattr(hook, "__module__", "") == _CAPTURING
