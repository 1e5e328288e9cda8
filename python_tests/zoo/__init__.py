"""Tiny random vision-language models of many transformers classes; nothing is downloaded.

    family = FAMILIES["qwen3_vl"]
    model = family.build()
    prompts = [[30, family.picture(0), 31], [32, 33]]
    inputs = family.inputs(model, prompts)
    model(**inputs)
    family.visuals(prompts, inputs)[0][0].columns  # the placeholders of the picture

Each file lays prompts out as the processors of its classes do.
"""

from . import anyres, gemma, glm, llava, qwen, tiles
from .family import Family, language_model_call, language_model_of, logits_of
from .prompt import FIRST_WORD, LAST_WORD, VOCABULARY, Film, Picture, Visual

FAMILIES = {
    family.name: family
    for family in (
        llava.LLAVA,
        llava.LLAVA_PIXTRAL,
        anyres.LLAVA_NEXT,
        anyres.LLAVA_ONEVISION,
        llava.VIDEO_LLAVA,
        anyres.LLAVA_NEXT_VIDEO,
        qwen.QWEN2_VL,
        qwen.QWEN2_5_VL,
        qwen.QWEN3_VL,
        qwen.QWEN3_VL_MOE,
        tiles.INTERNVL,
        tiles.IDEFICS3,
        tiles.SMOLVLM,
        gemma.GEMMA3,
        gemma.PALIGEMMA,
        gemma.PALIGEMMA2,
        llava.MISTRAL3,
        glm.GLM4V,
        tiles.AYA_VISION,
    )
}

__all__ = [
    "FAMILIES",
    "FIRST_WORD",
    "LAST_WORD",
    "VOCABULARY",
    "Family",
    "Film",
    "Picture",
    "Visual",
    "language_model_call",
    "language_model_of",
    "logits_of",
]
