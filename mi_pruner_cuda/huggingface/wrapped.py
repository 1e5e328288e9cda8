"""Models within other modules: the one that transformers made, whose hooks see every forward."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

# Of what others wrap a model in, where they keep it. PEFT's usual one has a call for it instead.
_INNER = {
    "DeepSpeedEngine": "module",
    "FullyShardedDataParallel": "module",
    "PeftMixedModel": "base_model.model",
}


def unwrap(model):
    """The transformers model within PEFT's, torch.compile's, DistributedDataParallel's and the
    like, however deep; anything else as it is.

    What PEFT puts into the model's layers (LoRA and the like) is a part of it and stays.

    Raises:
        ValueError: a wrapper that changes the prompt, or runs copies of the model, which have no
            hooks.
    """
    while True:
        inner = _within(model)
        if inner is None or inner is model:
            return model
        model = inner


def is_vision_model(model) -> bool:
    """Whether it is a module with transformers' configuration of a model with vision."""
    config = getattr(model, "config", None)
    return isinstance(model, nn.Module) and getattr(config, "vision_config", None) is not None


def hint(model) -> str:
    """For an error about a model that cannot be taken: "; pass model.x, ..." if there is one in it.

    Looked for among what the object holds and, in modules, below.
    """
    if isinstance(model, nn.Module):
        held = ((path, module) for path, module in model.named_modules() if path)
    else:
        held = getattr(model, "__dict__", {}).items()
    for path, module in held:
        if is_vision_model(module):
            return f"; pass its {path}, a {type(module).__name__}"
    return ""


def _within(model):
    """What one wrapper holds; None for what is none."""
    if not isinstance(model, nn.Module):
        return None
    if "_orig_mod" in model._modules:  # torch.compile's
        return model._orig_mod
    if isinstance(model, DataParallel) and len(model.device_ids) > 1:
        raise ValueError(
            f"model: got DataParallel on {len(model.device_ids)} devices, which runs copies of the "
            "model that no pruner is attached to; allowed are one device, "
            "DistributedDataParallel, and model.module"
        )
    if isinstance(model, DataParallel | DistributedDataParallel):
        return model.module
    if callable(getattr(type(model), "get_base_model", None)):
        _check_adapter(model)
        return model.get_base_model()
    path = _INNER.get(type(model).__name__)
    return None if path is None else model.get_submodule(path)


def _check_adapter(model) -> None:
    """Refuses PEFT's methods by which columns of the prompt are not where input_ids say."""
    config = getattr(model, "active_peft_config", None)
    kind = getattr(getattr(config, "peft_type", None), "value", "?")
    if getattr(config, "is_prompt_learning", False):
        raise ValueError(
            f"model: got {type(model).__name__} with {kind}, which puts tokens of its own before "
            "the prompt; allowed are adapters within the layers, such as LORA, and "
            "model.get_base_model(), whose own calls have no such tokens"
        )
    if getattr(config, "alora_invocation_tokens", None) is not None:
        raise ValueError(
            f"model: got {type(model).__name__} with alora_invocation_tokens, whose adapter begins "
            "at a column counted in the unpruned prompt; allowed are adapters of the whole prompt"
        )
