"""The kinds of model, and in what llama.cpp handles them differently."""

from dataclasses import dataclass

_CHATML_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>",
)  # fmt: skip
_GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")

# llama_chat_apply_template() knows a template by words in it; these are enough of each to be known.
_VICUNA = (
    "{% for m in messages %}{{ ('USER: ' if m['role'] == 'user' else 'ASSISTANT: ')"
    " + m['content'] }} {% endfor %}ASSISTANT:"
)
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' "
    "}}{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
_GEMMA = (
    "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\\n' + m['content']"
    " + '<end_of_turn>\\n' }}{% endfor %}{{ '<start_of_turn>model\\n' }}"
)


@dataclass(frozen=True)
class Kind:
    """A model family.

    Attributes:
        name: what the tests call it.
        architecture: llama.cpp's name of the text model.
        projector: llama.cpp's clip.projector_type.
        vocabulary: which of llama.cpp's vocabulary files.
        control_tokens: further tokens that the projector or the chat template writes.
        chat_template: stored in the file.
        patch: pixels across a patch.
        image_size: pixels across an image, for kinds that have one size, and across the grid of
            learned positions.
        merge: patches across that become one row.
        deepstack: planes that a row carries behind the main one.
        layers: of the text model.
    """

    name: str
    architecture: str
    projector: str
    vocabulary: str
    control_tokens: tuple[str, ...]
    chat_template: str
    patch: int = 14
    image_size: int = 336
    merge: int = 1
    deepstack: int = 0
    layers: int = 3

    @property
    def is_qwen(self) -> bool:
        """Whether the vision tower is Qwen's, with 2 x 2 patches to a row."""
        return self.architecture.startswith("qwen")


def _qwen(name: str, architecture: str, projector: str, **rest) -> Kind:
    return Kind(name, architecture, projector, "qwen2", _CHATML_TOKENS, _CHATML, merge=2, **rest)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("llava", "llama", "mlp", "llama-spm", (), _VICUNA),
        _qwen("qwen2vl", "qwen2vl", "qwen2vl_merger", image_size=560),
        _qwen("qwen25vl", "qwen2vl", "qwen2.5vl_merger", image_size=560),
        _qwen("qwen3vl", "qwen3vl", "qwen3vl_merger", patch=16, image_size=768, deepstack=2),
        # Every sixth layer attends to everything, the others to a window: both caches are in use.
        Kind(
            "gemma3", "gemma3", "gemma3", "llama-spm", _GEMMA_TOKENS, _GEMMA,
            image_size=448, merge=2, layers=6,
        ),
        Kind("pixtral", "llama", "pixtral", "llama-spm", ("[IMG_END]",), _VICUNA),
    )
}  # fmt: skip
