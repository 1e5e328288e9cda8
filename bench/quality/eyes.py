"""What a model computes for itself about an image: attention maps, for the rules that rank by them.

    with Eyes(model) as eyes, attach(model, keep=0.25, selector=selector(rule, eyes)):
        model.generate(**inputs)

Ours looks at none of it.
"""

import math
import sys
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration


@dataclass(frozen=True)
class View:
    """What the model itself computed for one image.

    cls_attention: float32 (N), attention from [CLS], mean over heads; from a tower without [CLS],
        the mean attention that a row receives.
    keys: float32 (N, Dk), the keys of the same layer, mean over heads.
    text_attention: float32 (N), attention from the prompt in an early layer of the language model.
    grid: (h, w) of the rows, or None.
    """

    cls_attention: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    text_attention: torch.Tensor | None = None
    grid: tuple[int, int] | None = None


class _Enough(Exception):
    """Ends a run of the language model at the layer that was looked at."""

    def __init__(self, attention: torch.Tensor):
        self.attention = attention


class Eyes:
    """A context manager that watches a model and has a View of each image of the latest prefill.

    Hooks recompute attention from the hidden states with each layer's own projections, so that the
    model runs on with whatever attention it uses. `views` is filled when attach selects: each image
    in the order of the prompt, item by item.

    In the vision tower that is the layer whose output the projector reads (the last but one in
    LLaVA-1.5), and from [CLS]. Qwen2.5-VL's tower has no [CLS]: cls_attention is then the mean
    attention that a patch receives from all patches of the image, mean over the 2 x 2 patches of a
    row, in the last layer of full attention (in the others a patch is seen from its own window
    only, and windows differ in size); keys are those before the rotation by position.

    For text_attention the first text_layer + 1 layers of the language model run once more, on the
    unpruned prompt, before attach prunes it. It is an oracle: no rule that prunes before the
    language model has it at this price.

    Args:
        model: a LlavaForConditionalGeneration with a CLIP tower, or a
            Qwen2_5_VLForConditionalGeneration; images, no videos.
        text_layer: 0-based; 1 is FastV's "layer 2". None leaves text_attention out.
        queries: "last" takes the attention from the prompt's last token; "all" the mean over all
            tokens of the prompt but the row itself, where tokens before it count 0.
        tower_layer: 0-based, negative from the end; None takes the layer described above.
    """

    def __init__(
        self,
        model,
        text_layer: int | None = 1,
        queries: str = "last",
        tower_layer: int | None = None,
    ):
        if not isinstance(
            model, (LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)
        ):
            raise TypeError(
                f"model: got {type(model).__name__}, allowed are LlavaForConditionalGeneration and "
                "Qwen2_5_VLForConditionalGeneration"
            )
        if queries not in ("last", "all"):
            raise ValueError(f"queries: got {queries!r}, allowed are 'last' and 'all'")
        self.views: list[View] = []
        self.has_text = text_layer is not None
        self._model = model
        self._language_model = model.model.language_model
        self._queries = queries
        self._watched = self._text_attention_of(text_layer) if self.has_text else None
        self._tower_layer = tower_layer
        self._handles: list = []
        self._call: dict | None = None  # arguments of a call that brings images
        self._patches: tuple | None = None  # of Qwen's tower: received attention and keys
        self._given = 0

    def __enter__(self) -> "Eyes":
        base = self._model.model
        self._on(base, self._begin)
        if isinstance(self._model, LlavaForConditionalGeneration):
            self._on(self._clip_layer(), self._see_clip)
        else:
            self._on(self._qwen_layer(), self._see_patches)
            hook = base.visual.register_forward_hook(self._see_qwen, with_kwargs=True)
            self._handles.append(hook)
        if self.has_text:
            # Before the pruner's hook, whichever was registered first: the prompt is still whole.
            self._on(self._language_model, self._see_text, prepend=True)
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def next(self, n: int) -> View:
        """The next image's, in the order in which attach selects.

        Raises:
            ValueError: there is none left, or it has not n rows.
        """
        if self._given >= len(self.views):
            raise ValueError(
                f"eyes: got a call for image {self._given}, allowed are the {len(self.views)} "
                "images of the latest forward, each once (budget 'per-image')"
            )
        view = self.views[self._given]
        self._given += 1
        if len(view.cls_attention) != n:
            rows = len(view.cls_attention)
            raise ValueError(f"visual: got {n} rows, allowed are the {rows} rows of the image")
        return view

    def _on(self, module, hook, prepend: bool = False) -> None:
        handle = module.register_forward_pre_hook(hook, with_kwargs=True, prepend=prepend)
        self._handles.append(handle)

    def _text_attention_of(self, layer: int):
        layers = self._language_model.layers
        if not 0 <= layer < len(layers):
            raise ValueError(f"text_layer: got {layer}, allowed is [0, {len(layers)}) or None")
        return layers[layer].self_attn

    def _clip_layer(self):
        """The attention module to watch in a CLIP tower."""
        tower = self._model.model.vision_tower
        layers = next((m.layers for m in tower.modules() if hasattr(m, "layers")), None)
        if not hasattr(tower.config, "projection_dim") or layers is None:
            raise TypeError(f"model: got a tower {type(tower).__name__}, allowed is a CLIP tower")
        if self._tower_layer is not None:
            return layers[self._tower_layer].self_attn
        feature = self._model.config.vision_feature_layer
        if not isinstance(feature, int):
            feature = feature[-1]
        # Hidden states count from the embeddings: number f >= 1 is what layer f - 1 gives.
        return layers[feature - 1 if feature > 0 else feature].self_attn

    def _qwen_layer(self):
        """The attention module to watch in a Qwen2.5-VL tower."""
        tower = self._model.model.visual
        layer = self._tower_layer
        return tower.blocks[tower.fullatt_block_indexes[-1] if layer is None else layer].attn

    def _begin(self, module, args, kwargs) -> None:
        """A call of the vision-and-language module begins."""
        self._call = None
        # generate runs the tower beforehand and hands over what it gave.
        encoded = kwargs.get("mm_encoder_outputs") or {}
        if kwargs.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            raise ValueError("pixel_values_videos: got a video, allowed are images")
        if kwargs.get("pixel_values") is not None or encoded.get("image") is not None:
            self._call, self._given = kwargs, 0

    @torch.no_grad()
    def _see_clip(self, attention, args, kwargs) -> None:
        """Before a CLIP layer's attention: hidden states (images, 1 + N, C)."""
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        query = _heads(attention.q_proj(hidden[:, :1]), attention.num_heads)
        key = _heads(attention.k_proj(hidden), attention.num_heads)
        weights = _softmax(query @ key.transpose(-1, -2) * attention.scale).mean(1)[:, 0, 1:]
        keys = key.float().mean(1)[:, 1:]
        config = self._model.model.vision_tower.config
        side = config.image_size // config.patch_size
        self.views = [View(w, k, grid=(side, side)) for w, k in zip(weights, keys, strict=True)]

    @torch.no_grad()
    def _see_patches(self, attention, args, kwargs) -> None:
        """Before a Qwen layer's attention: hidden states (patches of all images, C)."""
        module = sys.modules[type(attention).__module__]
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        query, plain, _ = (
            attention.qkv(hidden)
            .reshape(len(hidden), 3, attention.num_heads, -1)
            .permute(1, 0, 2, 3)
        )
        cos, sin = kwargs["position_embeddings"]
        query, key = module.apply_rotary_pos_emb_vision(query, plain, cos, sin)
        received = []
        for begin, end in pairwise(kwargs["cu_seqlens"].tolist()):
            q, k = query[begin:end].transpose(0, 1), key[begin:end].transpose(0, 1)
            received.append(_softmax(q @ k.transpose(-1, -2) * attention.scaling).mean((0, 1)))
        self._patches = torch.cat(received), plain.float().mean(1)

    @torch.no_grad()
    def _see_qwen(self, tower, args, kwargs, output) -> None:
        """After Qwen's tower: patches become rows, in the order of the image."""
        from transformers.vision_utils import get_vision_window_index

        grids = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        merge = tower.spatial_merge_size
        order, _ = get_vision_window_index(grids, merge, tower.window_size, tower.patch_size)
        received, keys = self._patches
        back = order.argsort().to(received.device)
        received = received.view(-1, merge**2).mean(1)[back]
        keys = keys.view(len(received), merge**2, -1).mean(1)[back]
        self.views, begin = [], 0
        for _, height, width in grids.tolist():
            grid = height // merge, width // merge
            own = slice(begin, begin + math.prod(grid))
            begin = own.stop
            self.views.append(View(received[own], keys[own], grid=grid))

    @torch.no_grad()
    def _see_text(self, module, args, kwargs) -> None:
        """Before the language model, which still has the whole prompt."""
        if self._call is None:
            return
        ids = self._call.get("input_ids")
        mask = self._call.get("attention_mask")
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        if ids is None or (cache is not None and cache.get_seq_length() > 0):
            raise ValueError("input_ids: text_attention needs the whole prompt in one forward")
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(f"attention_mask: got {tuple(mask.shape)}, allowed is (B, L) or None")
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        attention = self._run_to_the_layer(module, args, kwargs, real)
        found = attention[ids.to(attention.device) == self._model.config.image_token_id]
        sizes = [len(view.cls_attention) for view in self.views]
        if sum(sizes) != len(found):
            raise ValueError(
                f"input_ids: got {len(found)} image placeholders, allowed are the {sum(sizes)} "
                "rows of the images"
            )
        parts = found.split(sizes)
        self.views = [replace(v, text_attention=p) for v, p in zip(self.views, parts, strict=True)]

    def _run_to_the_layer(self, module, args, kwargs, real) -> torch.Tensor:
        """float32 (B, L): what each column gets; real: bool (B, L)."""

        def look(attention, inner_args, inner):
            raise _Enough(self._received(attention, inner, real))

        inputs = {k: v for k, v in kwargs.items() if k not in ("cache", "past_key_values")}
        inputs["use_cache"] = False
        handle = self._watched.register_forward_pre_hook(look, with_kwargs=True)
        try:
            module.forward(*args, **inputs)  # not a call of the module: its hooks stay asleep
        except _Enough as enough:
            return enough.attention
        finally:
            handle.remove()
        raise RuntimeError("model: its language model ran without the watched layer")

    def _received(self, attention, inner: dict, real: torch.Tensor) -> torch.Tensor:
        """float32 (B, L), mean over heads.

        Args:
            attention: the layer's module; inner: its keyword arguments.
            real: bool (B, L).
        """
        module = sys.modules[type(attention).__module__]
        hidden = inner["hidden_states"]
        heads = attention.q_proj.out_features // attention.head_dim
        query = _heads(attention.q_proj(hidden), heads)
        key = _heads(attention.k_proj(hidden), heads // attention.num_key_value_groups)
        query, key = module.apply_rotary_pos_emb(query, key, *inner["position_embeddings"])
        key = key.repeat_interleave(attention.num_key_value_groups, dim=1)
        columns = torch.arange(hidden.shape[1], device=hidden.device)
        window = getattr(attention, "sliding_window", None) or len(columns)
        real = real.to(hidden.device)
        found = []
        for q, k, own in zip(query, key, real, strict=True):
            rows = own.nonzero()[:, 0]
            rows = rows[-1:] if self._queries == "last" else rows
            seen = own & (columns <= rows[:, None]) & (columns > rows[:, None] - window)
            scores = q[:, rows] @ k.transpose(-1, -2) * attention.scaling
            weights = _softmax(scores.masked_fill(~seen, -math.inf)).mean(0)  # (queries, L)
            if self._queries == "last":
                found.append(weights[0])
                continue
            weights[torch.arange(len(rows)), rows] = 0.0
            found.append(weights.sum(0) / max(1, len(rows) - 1))
        return torch.stack(found)


def _heads(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, L, H * d) -> (B, H, L, d)."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.float().softmax(-1)
