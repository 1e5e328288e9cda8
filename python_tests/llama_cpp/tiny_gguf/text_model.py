"""Writes the text model of a pair."""

from dataclasses import dataclass

from .kinds import Kind
from .tensors import Tensors
from .vocabulary import read_vocabulary


@dataclass(frozen=True)
class Shape:
    """Sizes of a text model. Rows of 256 are the shortest that k-quants can store."""

    columns: int = 256
    layers: int | None = None  # None: the kind's own number
    feed_forward: int = 512
    heads: int = 8
    kv_heads: int = 4
    pieces: int = 4096  # of the vocabulary
    tied: bool = False  # the output matrix is the token table

    @property
    def head(self) -> int:
        return self.columns // self.heads


def write_text_model(
    kind: Kind, path, llama_source, shape: Shape, weight_type: str = "f32", seed: int = 0
) -> None:
    """Writes a text model of random weights as a GGUF file."""
    file = Tensors(path, kind.architecture, seed, weight_type)
    layers = shape.layers or kind.layers
    _write_parameters(file.writer, kind, shape, layers)
    vocabulary = read_vocabulary(llama_source, kind.vocabulary, kind.control_tokens, shape.pieces)
    vocabulary.write(file.writer, kind.chat_template)
    file.writer.add_vocab_size(vocabulary.size)
    # Rows that differ in length, as trained ones do. gemma3 has no matrix of its own for output.
    file.random("token_embd.weight", vocabulary.size, shape.columns, scale=0.8)
    if not shape.tied and kind.architecture != "gemma3":
        file.random("output.weight", vocabulary.size, shape.columns)
    file.near_one("output_norm.weight", shape.columns)
    for layer in range(layers):
        _write_layer(file, f"blk.{layer}", kind, shape)
    file.close()


def _write_parameters(writer, kind: Kind, shape: Shape, layers: int) -> None:
    writer.add_name(f"tiny-{kind.name}")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.columns)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    if kind.is_qwen:
        # How many pairs of a head turn with time, height and width.
        pairs = shape.head // 2
        height = (pairs - pairs // 4) // 2
        sections = [pairs // 4, height, pairs - pairs // 4 - height, 0]
        writer.add_rope_dimension_sections(sections)
    if kind.deepstack:
        writer.add_num_deepstack_layers(kind.deepstack)
    if kind.architecture == "gemma3":
        writer.add_sliding_window(512)


def _write_layer(file: Tensors, name: str, kind: Kind, shape: Shape) -> None:
    columns, queries, keys = shape.columns, shape.columns, shape.kv_heads * shape.head
    file.near_one(f"{name}.attn_norm.weight", columns)
    file.near_one(f"{name}.ffn_norm.weight", columns)
    # Large queries and keys: attention that tells rows apart, so that a wrong position shows.
    file.random(f"{name}.attn_q.weight", queries, columns, scale=2)
    file.random(f"{name}.attn_k.weight", keys, columns, scale=2)
    file.random(f"{name}.attn_v.weight", keys, columns)
    file.random(f"{name}.attn_output.weight", columns, queries)
    if kind.architecture == "qwen2vl":
        for part, size in (("q", queries), ("k", keys), ("v", keys)):
            file.vector(f"{name}.attn_{part}.bias", size, 0.1)
    else:
        _write_head_norms(file, name, kind, shape)
    file.random(f"{name}.ffn_gate.weight", shape.feed_forward, columns)
    file.random(f"{name}.ffn_up.weight", shape.feed_forward, columns)
    file.random(f"{name}.ffn_down.weight", columns, shape.feed_forward)


def _write_head_norms(file: Tensors, name: str, kind: Kind, shape: Shape) -> None:
    if kind.architecture in ("qwen3vl", "gemma3"):
        file.near_one(f"{name}.attn_q_norm.weight", shape.head)
        file.near_one(f"{name}.attn_k_norm.weight", shape.head)
    if kind.architecture == "gemma3":
        file.near_one(f"{name}.post_attention_norm.weight", shape.columns)
        file.near_one(f"{name}.post_ffw_norm.weight", shape.columns)
