"""Writes small vision-language models as GGUF pairs that llama.cpp loads: random weights, no torch.

    write_pair(KINDS["llava"], folder, llama_source)    # folder/model.gguf and folder/mmproj.gguf

A kind is one way in which llama.cpp takes image rows: positions in one dimension (llava), in three
(qwen2vl, qwen25vl), rows that carry further planes (qwen3vl), attention that is not causal within
an image (gemma3), and rows that end a line of the image (pixtral). Tokenizers come from llama.cpp's
own vocabulary files, so `llama_source` is a folder of its source.
"""

from .demo_vlm import write_demo_vlm
from .kinds import KINDS, Kind
from .mmproj import Tower, write_mmproj
from .pair import write_pair
from .tensors import WEIGHT_TYPES
from .text_model import Shape, write_text_model

__all__ = [
    "KINDS",
    "WEIGHT_TYPES",
    "Kind",
    "Shape",
    "Tower",
    "write_demo_vlm",
    "write_mmproj",
    "write_pair",
    "write_text_model",
]
