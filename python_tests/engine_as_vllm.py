"""A worked example: mi_pruner_cuda.engine where vLLM prunes.

PrunedModel has what a vLLM model class has that says supports_multimodal_pruning = True; Runner
makes the calls that vLLM's model runner makes, in its order and with its shapes. Both are small
stand-ins, written to be read; vLLM is not needed. The model is a tiny random Qwen2.5-VL.

    processor         keep_counts            placeholders of each image, before it is encoded
    embed_multimodal  plan, Plan.rows, ..    (K_i, D + 4): the kept rows and where they were
    for each chunk of the prompt:
        recompute_mrope_positions            takes the 4 channels off, puts positions right
        embed_input_ids                      merges rows into the chunk
    decode            mrope_position_delta   the token in column c is at position c + delta

The question has to reach the encoder's side, as vLLM's embed_multimodal does not see the prompt: a
processor hands it over as one more field of the image's item. It then belongs into the item's
hash, by which encoder outputs are cached. Without a question (None) the plan is text-free.

The 4 channels are in the rows' own dtype. Beware of bfloat16, which holds every integer up to 256
and no further: larger grids need float32, or a second tensor beside the rows.
"""

from dataclasses import dataclass

import torch
from tiny_models import IMAGE, VISION_END, VISION_START
from transformers import DynamicCache

from mi_pruner_cuda import defaults, engine

CHANNELS = 4  # t, h, w within the image, and how far the text after it moves on


@dataclass
class Item:
    """One image of a request.

    size: (h, w) in tokens.
    pixels, grid: as the model's encoder takes them.
    question: ids, or None.
    offset, length: its placeholders in the pruned prompt.
    """

    size: tuple[int, int]
    pixels: torch.Tensor
    grid: torch.Tensor
    question: list[int] | None
    offset: int = 0
    length: int = 0


class PrunedModel:
    """The model's side."""

    supports_multimodal_pruning = True

    def __init__(self, model, ratio: float, redundancy: float = defaults.REDUNDANCY):
        self.model, self.ratio, self.redundancy = model, ratio, redundancy

    def process(self, parts: list, items: list[Item]) -> list[int]:
        """Ids of the pruned prompt; fills in each item's offset and length.

        parts: ids and, for each image, its size; nothing has been encoded yet.
        """
        counts = iter(engine.keep_counts([h * w for h, w in (i.size for i in items)], self.ratio))
        waiting, ids = iter(items), []
        for part in parts:
            if not isinstance(part, tuple):
                ids.append(part)
                continue
            item, item_length = next(waiting), next(counts)
            item.offset, item.length = len(ids) + 1, item_length
            ids += [VISION_START, *[IMAGE] * item_length, VISION_END]
        return ids

    @torch.no_grad()
    def embed_multimodal(self, items: list[Item]) -> tuple[torch.Tensor, ...]:
        """(length, D + 4) for each item."""
        return tuple(self._embed_item(item) for item in items)

    def _embed_item(self, item: Item) -> torch.Tensor:
        features = self.model.model.get_image_features(item.pixels, item.grid[None])
        rows = torch.cat(list(getattr(features, "pooler_output", features)))
        text = None
        if item.question is not None:
            text = self.model.get_input_embeddings()(torch.tensor(item.question))
        plan = engine.plan([rows], text, self.ratio, redundancy=self.redundancy)
        where = plan.values(image_positions(*item.size))
        return torch.cat([plan.rows(rows), where.T.to(rows.dtype)], dim=1)

    def recompute_mrope_positions(
        self,
        input_ids: list[int],
        multimodal_embeddings: list[torch.Tensor],
        mrope_positions: torch.Tensor,
        num_computed_tokens: int,
    ) -> tuple[list[torch.Tensor], torch.Tensor, int]:
        """Puts images where they were in the unpruned prompt, and the text after them too.

        Args:
            input_ids: (P), the whole pruned prompt.
            multimodal_embeddings: rows of the chunk, (n, D + 4) for each image or part of one.
            mrope_positions: int64 (3, P), right for all columns before the chunk.
            num_computed_tokens: columns before the chunk.

        Returns:
            rows (n, D); int64 (3, P), right for all columns up to the chunk's end, and after it as
            far as no image follows; and the delta, right once no image follows.
        """
        positions = mrope_positions.clone()
        visual = [i == IMAGE for i in input_ids]
        end = num_computed_tokens
        following = int(positions.max()) + 1
        rows = []
        for part in multimodal_embeddings:
            rows.append(part[:, :-CHANNELS])
            *local, reach = part[:, -CHANNELS:].T.long()
            begin = visual.index(True, end)
            first = begin  # of the image: an earlier chunk may hold its beginning
            while first and visual[first - 1]:
                first -= 1
            base = int(positions[:, first - 1].max()) + 1 if first else 0
            end = begin + len(part)
            positions[:, begin:end] = base + torch.stack(local)
            text = base + int(reach[0])
            positions[:, end:] = text + torch.arange(len(input_ids) - end)
            following = text + len(input_ids) - end
        return rows, positions, following - len(input_ids)

    @torch.no_grad()
    def embed_input_ids(self, input_ids, multimodal_embeddings, *, is_multimodal):
        """(n), rows of the chunk, bool (n) -> (n, D)."""
        embeddings = self.model.get_input_embeddings()(input_ids).clone()
        if multimodal_embeddings:
            embeddings[is_multimodal] = torch.cat(multimodal_embeddings)
        return embeddings

    @torch.no_grad()
    def forward(self, embeddings, positions, cache) -> torch.Tensor:
        """(n, D), (3, n) -> logits (n, V); the cache grows."""
        output = self.model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        return self.model.lm_head(output.last_hidden_state)[0]


def image_positions(h: int, w: int) -> torch.Tensor:
    """int64 (4, h * w): t, h, w of each token as if the image began the prompt, and how many
    positions the whole image takes, whatever is kept of it."""
    row, column = torch.arange(h * w) // w, torch.arange(h * w) % w
    return torch.stack([row * 0, row, column, row * 0 + max(h, w)])


class Runner:
    """The engine's side: chunked prefill and greedy decoding of one request."""

    def __init__(self, model: PrunedModel, chunk: int):
        self.model, self.chunk = model, chunk

    def run(self, parts: list, items: list[Item], new_tokens: int):
        """Logits of the prompt (P, V), its positions (3, P), and the generated ids."""
        ids = self.model.process(parts, items)
        encoder_outputs = self.model.embed_multimodal(items)
        # What the engine takes the positions to be before any image is known.
        positions, delta = torch.arange(len(ids)).repeat(3, 1), 0
        cache, logits = DynamicCache(), []
        for begin in range(0, len(ids), self.chunk):
            end = min(begin + self.chunk, len(ids))
            parts_here = [
                output[max(begin - item.offset, 0) : end - item.offset]
                for item, output in zip(items, encoder_outputs, strict=True)
                if item.offset < end and begin < item.offset + item.length
            ]
            rows, positions, delta = self.model.recompute_mrope_positions(
                input_ids=ids,
                multimodal_embeddings=parts_here,
                mrope_positions=positions,
                num_computed_tokens=begin,
            )
            here = torch.tensor(ids[begin:end])
            embeddings = self.model.embed_input_ids(here, rows, is_multimodal=here == IMAGE)
            logits.append(self.model.forward(embeddings, positions[:, begin:end], cache))
        logits = torch.cat(logits)
        return logits, positions, self._decode(logits[-1], len(ids), delta, cache, new_tokens)

    def _decode(self, last, column, delta, cache, new_tokens) -> list[int]:
        found = []
        for _ in range(new_tokens):
            found.append(int(last.argmax()))
            token = torch.tensor(found[-1:])
            embeddings = self.model.embed_input_ids(token, [], is_multimodal=token == IMAGE)
            last = self.model.forward(embeddings, torch.full((3, 1), column + delta), cache)[-1]
            column += 1
        return found
