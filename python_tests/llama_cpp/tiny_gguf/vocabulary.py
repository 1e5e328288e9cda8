"""Tokenizers out of llama.cpp's vocabulary files."""

import functools
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFReader, GGUFWriter, TokenType

_BYTES = 256  # the pieces that the first merge may use, in a byte-level vocabulary


@dataclass
class Vocabulary:
    """What a GGUF file says of its tokenizer, under "tokenizer.ggml."."""

    fields: dict

    @property
    def tokens(self) -> list[str]:
        return self.fields["tokens"]

    @property
    def size(self) -> int:
        return len(self.tokens)

    def write(self, writer: GGUFWriter, chat_template: str) -> None:
        """Adds it to a file."""
        for key, value in self.fields.items():
            add = {list: writer.add_array, str: writer.add_string, bool: writer.add_bool}
            add.get(type(value), writer.add_uint32)(f"tokenizer.ggml.{key}", value)
        writer.add_chat_template(chat_template)


def read_vocabulary(llama_source, name: str, control_tokens: tuple, limit: int) -> Vocabulary:
    """A vocabulary with its first pieces and some control tokens.

    Pieces are in the order in which they were merged, so the first ones are a vocabulary of their
    own; a small one keeps the tests quick.

    Args:
        llama_source: a folder of llama.cpp's source.
        name: "llama-spm" or "qwen2".
        control_tokens: appended where they are not among the first pieces.
        limit: how many pieces are taken.
    """
    fields = dict(_read_fields(Path(llama_source) / "models" / f"ggml-vocab-{name}.gguf"))
    for key in ("tokens", "token_type", "scores"):
        if key in fields:
            fields[key] = fields[key][:limit]
    if "merges" in fields:
        fields["merges"] = fields["merges"][: limit - _BYTES]
    _append(fields, control_tokens)
    if "<|im_end|>" in fields["tokens"]:
        _point(fields, bos="<|endoftext|>", padding="<|endoftext|>", eos="<|im_end|>")
        fields["add_bos_token"] = False
    return Vocabulary(fields)


@functools.cache  # reading 150,000 pieces takes seconds
def _read_fields(path: Path) -> dict:
    prefix = "tokenizer.ggml."
    return {
        key.removeprefix(prefix): field.contents()
        for key, field in GGUFReader(path).fields.items()
        if key.startswith(prefix)
    }


def _append(fields: dict, control_tokens: tuple) -> None:
    for token in control_tokens:
        if token not in fields["tokens"]:
            fields["tokens"].append(token)
            fields["token_type"].append(int(TokenType.CONTROL))
            if "scores" in fields:
                fields["scores"].append(0.0)


def _point(fields: dict, **ends: str) -> None:
    for name, token in ends.items():
        fields[f"{name}_token_id"] = fields["tokens"].index(token)
