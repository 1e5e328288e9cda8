"""Writes the vision half of a pair: a ViT and the projector."""

from dataclasses import dataclass

from .kinds import Kind
from .tensors import Tensors

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Tower:
    """Sizes of a ViT."""

    columns: int = 64
    layers: int = 2
    feed_forward: int = 128
    heads: int = 4


def write_mmproj(
    kind: Kind, path, columns: int, tower: Tower, weight_type: str = "f32", seed: int = 1
) -> None:
    """Writes a vision tower and projector of random weights as a GGUF file.

    Args:
        kind: which tower and projector.
        path: the file.
        columns: of the text model.
        tower: sizes of the ViT.
        weight_type: a key of WEIGHT_TYPES.
        seed: of the random numbers.
    """
    file = Tensors(path, "clip", seed, weight_type)
    _write_parameters(file.writer, kind, columns, tower)
    _write_input(file, kind, tower)
    for layer in range(tower.layers):
        _write_layer(file, f"v.blk.{layer}", kind, tower)
    if kind.name not in ("llava", "pixtral"):
        file.layer_norm("v.post_ln", tower.columns, bias=not _has_rms_norm(kind))
    others = {"mlp": _write_llava, "gemma3": _write_gemma, "pixtral": _write_pixtral}
    others.get(kind.projector, _write_qwen)(file, kind, columns, tower)
    file.close()


def _has_rms_norm(kind: Kind) -> bool:
    return kind.name in ("qwen25vl", "pixtral")


def _write_parameters(writer, kind: Kind, columns: int, tower: Tower) -> None:
    writer.add_name(f"tiny-{kind.name}")
    writer.add_string("general.type", "mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(kind.projector)
    writer.add_vision_embedding_length(tower.columns)
    writer.add_vision_feed_forward_length(tower.feed_forward)
    writer.add_vision_block_count(tower.layers)
    writer.add_vision_head_count(tower.heads)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_projection_dim(columns)
    writer.add_vision_image_size(kind.image_size)
    writer.add_vision_patch_size(kind.patch)
    writer.add_vision_image_mean(_MEAN)
    writer.add_vision_image_std(_STD)
    (writer.add_vision_use_silu if _has_rms_norm(kind) else writer.add_vision_use_gelu)(True)
    if kind.is_qwen:
        writer.add_vision_spatial_merge_size(kind.merge)
    elif kind.merge > 1:
        writer.add_vision_projector_scale_factor(kind.merge)
    if kind.name == "qwen25vl":
        writer.add_vision_n_wa_pattern(2)  # every second layer attends across windows


def _write_input(file: Tensors, kind: Kind, tower: Tower) -> None:
    """From pixels to the first layer."""
    kernel = (tower.columns, 3, kind.patch, kind.patch)
    file.random("v.patch_embd.weight", *kernel, exact=True)
    if kind.is_qwen:  # for the second of two frames; a still image counts as both
        file.random("v.patch_embd.weight.1", *kernel, exact=True)
    if kind.name in ("qwen3vl", "gemma3"):
        file.vector("v.patch_embd.bias", tower.columns, 0.02)
    positions = (kind.image_size // kind.patch) ** 2
    if kind.name == "llava":
        positions += 1
        file.vector("v.class_embd", tower.columns, 0.5)
    if kind.name in ("llava", "pixtral"):
        file.layer_norm("v.pre_ln", tower.columns, bias=not _has_rms_norm(kind))
    if kind.name in ("llava", "qwen3vl", "gemma3"):
        file.random("v.position_embd.weight", positions, tower.columns, scale=4, exact=True)


def _write_layer(file: Tensors, name: str, kind: Kind, tower: Tower) -> None:
    columns, hidden = tower.columns, tower.feed_forward
    for norm in ("ln1", "ln2"):
        file.layer_norm(f"{name}.{norm}", columns, bias=not _has_rms_norm(kind))
    if kind.name == "qwen3vl":
        file.linear(f"{name}.attn_qkv", 3 * columns, columns)
    else:
        for part in ("attn_q", "attn_k", "attn_v"):
            file.linear(f"{name}.{part}", columns, columns)
    file.linear(f"{name}.attn_out", columns, columns)
    if _has_rms_norm(kind):
        file.linear(f"{name}.ffn_gate", hidden, columns)
    file.linear(f"{name}.ffn_up", hidden, columns)
    file.linear(f"{name}.ffn_down", columns, hidden)


def _write_llava(file: Tensors, kind: Kind, columns: int, tower: Tower) -> None:
    file.linear("mm.0", columns, tower.columns)
    file.linear("mm.2", columns, columns, scale=0.1)


def _write_qwen(file: Tensors, kind: Kind, columns: int, tower: Tower) -> None:
    merged = kind.merge**2 * tower.columns
    file.linear("mm.0", merged, merged)
    file.linear("mm.2", columns, merged, scale=0.1)
    for layer in range(kind.deepstack):
        name = f"v.deepstack.{layer}"
        file.layer_norm(f"{name}.norm", merged)
        file.linear(f"{name}.fc1", merged, merged)
        file.linear(f"{name}.fc2", columns, merged, scale=0.1)


def _write_gemma(file: Tensors, kind: Kind, columns: int, tower: Tower) -> None:
    file.near_one("mm.soft_emb_norm.weight", tower.columns)
    # llama.cpp transposes this one: (in, out) in NumPy's order.
    file.random("mm.input_projection.weight", tower.columns, columns, exact=True)


def _write_pixtral(file: Tensors, kind: Kind, columns: int, tower: Tower) -> None:
    file.linear("mm.1", columns, tower.columns)
    file.linear("mm.2", columns, columns, scale=0.1)
    file.vector("v.token_embd.img_break", columns, 0.05)
