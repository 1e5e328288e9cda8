"""The images and videos of a call, each with its columns."""

from dataclasses import dataclass

import torch

from .call import Call
from .layout import Scene, Shape
from .models import Parts


@dataclass(frozen=True)
class Visual:
    """One image or video in the prompt.

    item: row of the batch; number: among the item's images (or videos), in order.
    columns: int64 (tokens), its placeholders in the item's row.
    """

    item: int
    number: int
    kind: str
    columns: torch.Tensor
    shape: Shape


def placeholders(call: Call, parts: Parts) -> dict[str, torch.Tensor]:
    """kind -> bool (B, L), where its placeholders are."""
    ids = call.input_ids
    images = ids == parts.image_token
    if parts.video_token is not None:
        return {"image": images, "video": ids == parts.video_token}
    only_video = call.brings("video") and not call.brings("image")
    return {"video" if parts.spec.one_placeholder and only_video else "image": images}


def find_visuals(scene: Scene, parts: Parts) -> list[Visual]:
    """Images and videos of the whole batch, by item and then by place in the prompt.

    Raises:
        ValueError: they do not fill their placeholders, or nothing was merged there.
    """
    found: list[Visual] = []
    for kind, visual in placeholders(scene.call, parts).items():
        if not bool(visual.any()):
            continue
        if not scene.call.brings(kind):
            raise ValueError(
                f"{kind}s: the prompt has {int(visual.sum())} {kind} placeholders and no pixels "
                f"come with it; pruning needs whole {kind}s and their pixels"
            )
        if not parts.known:
            _check_merged(scene, kind, visual, parts)
        layout = parts.spec.images if kind == "image" else parts.spec.videos
        found += deal(kind, visual, layout(scene, kind, visual))
    return sorted(found, key=lambda v: (v.item, int(v.columns[0])))


def deal(kind: str, visual: torch.Tensor, shapes: list[Shape]) -> list[Visual]:
    """Deals the placeholders out to the shapes, in order, as models do when they merge them.

    Args:
        kind: "image" or "video".
        visual: bool (B, L), the placeholders.
        shapes: those of the whole batch, in order.

    Raises:
        ValueError: the counts differ, or an image crosses from one item into the next.
    """
    total, described = int(visual.sum()), sum(shape.tokens for shape in shapes)
    if total != described:
        raise ValueError(
            f"{kind}s: the prompt has {total} placeholders and its {len(shapes)} {kind}s have "
            f"{described} visual tokens; pruning needs whole {kind}s and their pixels"
        )
    items, columns = visual.nonzero(as_tuple=True)
    found, start, numbers = [], 0, [0] * visual.shape[0]
    for shape in shapes:
        own = slice(start, start + shape.tokens)
        start += shape.tokens
        if shape.tokens == 0:
            continue
        item = int(items[own][0])
        if int(items[own][-1]) != item:
            raise ValueError(
                f"{kind}s: one of {shape.tokens} tokens crosses from item {item} into the next"
            )
        found.append(Visual(item, numbers[item], kind, columns[own], shape))
        numbers[item] += 1
    return found


def _check_merged(scene: Scene, kind: str, visual: torch.Tensor, parts: Parts) -> None:
    """A model may take images another way (cross-attention): then nothing replaced the ids."""
    table = parts.model.get_input_embeddings()
    token = parts.image_token if kind == "image" else parts.video_token
    known = torch.tensor([token], dtype=torch.int64, device=scene.call.input_ids.device)
    row = table(known)[0]
    rows = scene.embeddings[visual.to(scene.embeddings.device)]
    if bool((rows == row.to(rows)).all(-1).any()):
        raise ValueError(
            f"model: got {type(parts.model).__name__}; missing are {kind} rows in place of token "
            f"{token} when the language model is called: it takes its {kind}s another way"
        )
