"""Settings that the text and vision configs of many classes share."""

import transformers

from .prompt import BOS, EOS, HIDDEN, PAD, VOCABULARY

TEXT = {
    "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
    "max_position_embeddings": 512, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def llama():
    return transformers.LlamaConfig(**TEXT)


def clip(side: int):
    """A tower for images of side x side pixels, patches of 4 x 4."""
    return transformers.CLIPVisionConfig(**VISION, image_size=side, patch_size=4, projection_dim=16)


def siglip(side: int):
    """A tower without a class token for images of side x side pixels, patches of 4 x 4."""
    return transformers.SiglipVisionConfig(
        **VISION, image_size=side, patch_size=4, vision_use_head=False
    )


def pixtral():
    """A tower for images of any size up to 32 x 32 pixels, patches of 4 x 4."""
    return transformers.PixtralVisionConfig(**VISION, image_size=32, patch_size=4)


def rope_of_three_axes(**more) -> dict:
    """Rotary positions (t, h, w) of a text config, for heads of 8: transformers 5 renamed it."""
    kind = {"rope_type": "default", "mrope_section": [2, 1, 1], **more}
    if before_transformers_5():
        return {"rope_scaling": kind, "rope_theta": 1e4}
    return {"rope_parameters": kind | {"rope_theta": 1e4}}


def before_transformers_5() -> bool:
    """Whether this is transformers 4, which a smoke test runs."""
    return int(transformers.__version__.split(".")[0]) < 5
