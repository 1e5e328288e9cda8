"""Tiny random vision-language models, their prompts and a tiny tokenizer: nothing is downloaded.

Ids below NUMBER_OF_MARKS are special or visual; the rest are words.
"""

from dataclasses import dataclass, field

import tokenizers
import torch
import transformers

VOCABULARY = 96
PAD, BOS, EOS, IMAGE, VIDEO, VISION_START, VISION_END = range(7)
NUMBER_OF_MARKS = 7
LLAVA_SIDE = 4  # patches: 4 x 4 = 16 tokens per image
LLAVA_TOKENS = LLAVA_SIDE * LLAVA_SIDE
HIDDEN = 32


def llava(attention: str = "sdpa", seed: int = 0, text=transformers.LlamaConfig, **of_text):
    """A LlavaForConditionalGeneration of two layers, in eval mode: 16 tokens per 16 x 16 image.

    text, of_text: the language model's class of configuration, and more of its arguments.
    """
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=16, patch_size=4, projection_dim=16,
        ),
        text_config=text(
            hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=512,
            pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, **of_text,
        ),
        image_token_id=IMAGE,
        pad_token_id=PAD,
    )  # fmt: skip
    return _build(transformers.LlavaForConditionalGeneration, config, attention, seed)


def qwen(attention: str = "sdpa", seed: int = 0):
    """A Qwen2_5_VLForConditionalGeneration of two layers, in eval mode: images of any size."""
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    if int(transformers.__version__.split(".")[0]) < 5:
        rope = {"rope_scaling": rope, "rope_theta": 1e4}
    else:
        rope = {"rope_parameters": {**rope, "rope_theta": 1e4}}
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 1, "window_size": 16,
            "fullatt_block_indexes": [1], "out_hidden_size": HIDDEN,
        },
        text_config={
            "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
            "max_position_embeddings": 512, "pad_token_id": PAD, "bos_token_id": BOS,
            "eos_token_id": EOS, **rope,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    return _build(transformers.Qwen2_5_VLForConditionalGeneration, config, attention, seed)


def _build(model_class, config, attention, seed):
    return build(model_class, config, attention, seed, spread=0.3, marks=NUMBER_OF_MARKS)


def build(model_class, config, attention: str, seed: int, spread: float, marks: int):
    """A model with random weights in eval mode, float32.

    Args:
        spread: standard deviation of its matrices.
        marks: ids below it are never generated.
    """
    torch.manual_seed(seed)
    # _from_config of the class: random weights, through the public constructor.
    model = model_class._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # The default spread of 0.02 makes every answer the same; this one makes tokens matter.
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = EOS
    # The end is among the suppressed tokens: every generation runs to its full length.
    model.generation_config.suppress_tokens = list(range(marks))
    return model


@dataclass
class Prompt:
    """Words and images in order: an int is a word's id, a tuple a Qwen image's (h, w) in tokens."""

    parts: list = field(default_factory=list)

    @property
    def images(self) -> list[tuple[int, int]]:
        """Sizes in tokens."""
        return [part for part in self.parts if isinstance(part, tuple)]

    def ids(self, framed: bool) -> list[int]:
        """Input ids; framed puts vision start and end ids around images, as Qwen does."""
        ids = [BOS]
        for part in self.parts:
            if isinstance(part, tuple):
                marks = [IMAGE] * (part[0] * part[1])
                ids += [VISION_START, *marks, VISION_END] if framed else marks
            else:
                ids.append(part)
        return ids


SQUARE = (LLAVA_SIDE, LLAVA_SIDE)  # the one size of a tiny LLaVA image


def inputs_for(model, prompts: list[Prompt], seed: int = 0) -> dict:
    """What a processor would return for a batch: left-padded ids, mask, pixels of every image.

    The pixels of an image depend on its item's words and its place only, so that a prompt has the
    same images alone and in a batch.
    """
    framed = model.config.model_type == "qwen2_5_vl"
    rows = [prompt.ids(framed) for prompt in prompts]
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    pixels, grids = [], []
    for prompt in prompts:
        for number, (h, w) in enumerate(prompt.images):
            own = 1000 * seed + 7 * number + sum(p for p in prompt.parts if isinstance(p, int))
            generator = torch.Generator().manual_seed(own)
            if framed:
                patches = (2 * h) * (2 * w)  # spatial_merge_size 2
                pixels.append(torch.randn(patches, 3 * 4 * 4, generator=generator))
                grids.append([1, 2 * h, 2 * w])
            else:
                pixels.append(torch.randn(1, 3, 16, 16, generator=generator))
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
    if framed:
        if grids:
            inputs["image_grid_thw"] = torch.tensor(grids)
        if int(transformers.__version__.split(".")[0]) >= 5:
            inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    return inputs


LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for c in m['content'] if c['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CHATML_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<start>system\nYou are a helpful assistant.<end>\n"
    "{% endif %}{% for m in messages %}<start>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
PLAIN_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] + '' }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
_MARKS = ["<pad>", "<s>", "</s>", "<image>", "<video>", "<start>", "<end>"]
_WORDS = (
    *("USER", "ASSISTANT", "user", "assistant", "system", "You", "are", "a", "helpful"),
    *("what", "colour", "is", "the", "7", "red", "blue", "it", "which", "digit", "green"),
    *(":", ".", "?", "[", "]"),
)


def word_tokenizer(template: str | None):
    """Words and punctuation marks, ids that fit the tiny models; unknown words become <unk>."""
    vocabulary = {word: i for i, word in enumerate([*_MARKS, *_WORDS, "<unk>"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return _wrap(tokenizer, template)


def byte_tokenizer(template: str | None):
    """Byte-level BPE with merges across spaces and line breaks, as large models have."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_MARKS,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["system\nYou are a helpful assistant.\nuser\n", "what colour is the 7?", "it is red"]
    tokenizer.train_from_iterator([" ".join(texts) + " ASSISTANT: USER: "] * 10, trainer)
    return _wrap(tokenizer, template)


def _wrap(tokenizer, template):
    known = tokenizer.get_vocab()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>" if "<unk>" in known else None,
        additional_special_tokens=[m for m in _MARKS[3:] if m in known],
        chat_template=template,
    )
