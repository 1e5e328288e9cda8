"""Converts the package's demo model (LLaVA: CLIP tower, Llama text model) to a GGUF pair.

What llama.cpp computes with it differs from transformers in these ways, all of them llama.cpp's:

- Its graph for LLaVA towers appends the class row behind the patches, yet hands on the rows from
  the second one: the first patch is lost, every other one moves up by one place, and the class row
  comes last. The position table is written so that each row gets the position that it was trained
  with; the rows themselves are then transformers'.
- Its GELU is the tanh form, in the projector too, looked up in a float16 table.
"""

import json
from pathlib import Path

import numpy as np
from gguf import TokenType
from safetensors.numpy import load_file

from .tensors import Tensors
from .vocabulary import Vocabulary

_WORD_START = "\u2581"


def write_demo_vlm(source, folder) -> Path:
    """Writes folder/model.gguf and folder/mmproj.gguf from a model's folder; returns the folder."""
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text("utf-8"))
    weights = load_file(source / "model.safetensors")
    _write_text_model(config, weights, source, folder / "model.gguf")
    processor = json.loads((source / "preprocessor_config.json").read_text("utf-8"))
    _write_mmproj(config, processor, weights, folder / "mmproj.gguf")
    return folder


# ---- the text model ----


def _write_text_model(config: dict, weights: dict, source: Path, path: Path) -> None:
    text = config["text_config"]
    file = Tensors(path, "llama", seed=0)
    writer = file.writer
    writer.add_name("mipruner-demo")
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_rope_dimension_count(text["head_dim"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_vocab_size(text["vocab_size"])
    template = (source / "chat_template.jinja").read_text("utf-8")
    word_vocabulary(source / "tokenizer.json", config).write(writer, template)
    prefix = "language_model."
    file.add("token_embd.weight", weights[f"{prefix}model.embed_tokens.weight"])
    file.add("output.weight", weights[f"{prefix}lm_head.weight"])
    file.add("output_norm.weight", weights[f"{prefix}model.norm.weight"])
    for layer in range(text["num_hidden_layers"]):
        _add_text_layer(file, weights, f"{prefix}model.layers.{layer}", f"blk.{layer}", text)
    file.close()


def _add_text_layer(file: Tensors, weights: dict, source: str, name: str, text: dict) -> None:
    for ours, theirs in (
        ("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"),
        ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
    ):  # fmt: skip
        file.add(f"{name}.{ours}.weight", weights[f"{source}.{theirs}.weight"])
    for part, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
        rows = weights[f"{source}.self_attn.{part}_proj.weight"]
        file.add(f"{name}.attn_{part}.weight", _pair_up(rows, text[heads]))


def _pair_up(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs lie half a head apart in transformers and side by side in llama.cpp's llama."""
    halves = rows.reshape(heads, 2, -1, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def word_vocabulary(path: Path, config: dict) -> Vocabulary:
    """The word-level tokenizer as llama.cpp's WordPiece one ("bert").

    That one lower-cases, splits at blanks and punctuation and looks for pieces from the word's
    start on; with no pieces but whole words it knows a word or takes the unknown token.
    """
    tokenizer = json.loads(path.read_text("utf-8"))
    special = {token["content"] for token in tokenizer["added_tokens"]}
    unknown = tokenizer["model"]["unk_token"]
    ids = tokenizer["model"]["vocab"]
    words = sorted(ids, key=ids.get)
    kinds = dict.fromkeys(special, TokenType.CONTROL) | {unknown: TokenType.UNKNOWN}
    return Vocabulary(
        {
            "model": "bert",
            "tokens": [word if word in special else _WORD_START + word for word in words],
            "token_type": [int(kinds.get(word, TokenType.NORMAL)) for word in words],
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
            "padding_token_id": config["pad_token_id"],
            "unknown_token_id": ids[unknown],
            "add_bos_token": False,  # the chat template writes it
            "add_sep_token": False,
            "normalizer.lowercase": True,
            "normalizer.strip_accents": False,
        }
    )


# ---- the vision tower and the projector ----


def _write_mmproj(config: dict, processor: dict, weights: dict, path: Path) -> None:
    vision = config["vision_config"]
    file = Tensors(path, "clip", seed=0)
    writer = file.writer
    writer.add_name("mipruner-demo")
    writer.add_string("general.type", "mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_image_mean(processor["image_mean"])
    writer.add_vision_image_std(processor["image_std"])
    writer.add_vision_use_gelu(True)
    # llama.cpp leaves a LLaVA tower's last layer out unless it is asked for by number.
    last = vision["num_hidden_layers"] + 1 + config["vision_feature_layer"]
    writer.add_array("clip.vision.feature_layer", [last])
    tower = "vision_tower.vision_model"
    _add_vision_input(file, weights, tower)
    for layer in range(vision["num_hidden_layers"]):
        _add_vision_layer(file, weights, f"{tower}.encoder.layers.{layer}", f"v.blk.{layer}")
    for ours, theirs in (("mm.0", "linear_1"), ("mm.2", "linear_2")):
        _add_both(file, weights, f"multi_modal_projector.{theirs}", ours)
    file.close()


def _add_both(file: Tensors, weights: dict, source: str, name: str) -> None:
    for part in ("weight", "bias"):
        file.add(f"{name}.{part}", weights[f"{source}.{part}"])


def _add_vision_input(file: Tensors, weights: dict, tower: str) -> None:
    embeddings = f"{tower}.embeddings"
    file.add("v.class_embd", weights[f"{embeddings}.class_embedding"])
    file.add("v.patch_embd.weight", weights[f"{embeddings}.patch_embedding.weight"])
    # transformers has the class row first, llama.cpp last.
    positions = weights[f"{embeddings}.position_embedding.weight"]
    file.add("v.position_embd.weight", np.roll(positions, -1, axis=0))
    _add_both(file, weights, f"{tower}.pre_layrnorm", "v.pre_ln")


def _add_vision_layer(file: Tensors, weights: dict, source: str, name: str) -> None:
    for ours, theirs in (
        ("ln1", "layer_norm1"), ("ln2", "layer_norm2"), ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"),
        ("attn_out", "self_attn.out_proj"), ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2"),
    ):  # fmt: skip
        _add_both(file, weights, f"{source}.{theirs}", f"{name}.{ours}")
