"""Writes a trained model and its processor in the Hugging Face format."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig
from vlm_prompt import FRAME_IDS


def export(architecture, model, words: tuple[str, ...], folder: pathlib.Path) -> None:
    """Writes the model and its processor.

    The weights are stored as float16 to halve the download; the configuration says float32, so
    ``from_pretrained`` casts them back and computes in full precision. The LLaVA loads in
    transformers 4.57 as well as in 5: tensors carry the names of the original LLaVA checkpoints,
    and the settings that moved between the two versions are spelled both ways.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    _edit_json(folder / "config.json", _spell_types, architecture.spell_config)
    GenerationConfig(do_sample=False, max_new_tokens=8, **FRAME_IDS).save_pretrained(folder)
    weights = {
        architecture.stored_name(name): value.detach().to("cpu", torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    processor = architecture.build_processor(words)
    processor.save_pretrained(folder)
    _edit_json(
        folder / "tokenizer_config.json", _spell_tokenizer_class, architecture.spell_tokenizer
    )
    images = processor.image_processor.to_dict()
    images["image_processor_type"] = type(processor.image_processor).__name__.removesuffix("Pil")
    path = folder / "preprocessor_config.json"  # transformers 4 looks for the image settings here
    path.write_text(json.dumps(images, indent=2) + "\n")


def _edit_json(path: pathlib.Path, *edits: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    for edit in edits:
        edit(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _spell_types(config: dict) -> None:
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("torch_dtype", None)
        part.pop("dtype", None)
    config["dtype"] = "float32"


def _spell_tokenizer_class(config: dict) -> None:
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_input_names"] = ["input_ids", "attention_mask"]
