"""What training supervises: patches, their alignment with words, answers and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from vlm_batches import Batch
from vlm_prompt import BLOCK, COLOUR_WORDS, DIGIT_WORDS, SIDE_WORDS, WORD_ID, Shared

from mi_pruner_cuda.demo import scenes

MOST_COUNTED = 9  # objects that the spread of attention is taught to count


class PatchHeads(nn.Module):
    """Linear probes on the projected rows; they serve training only and are not exported."""

    def __init__(self, width: int):
        super().__init__()
        self.digit = nn.Linear(width, len(DIGIT_WORDS))
        self.colour = nn.Linear(width, len(COLOUR_WORDS))
        self.quarter = nn.Linear(width, len(scenes.QUARTERS))
        self.centre = nn.Linear(width, 1)
        self.bright = nn.Linear(width, 2)


def dense_loss(heads: PatchHeads, rows: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict]:
    """What each patch shows, read linearly from its projected row."""
    shown = batch.digit < len(DIGIT_WORDS) - 1
    weight = torch.where(shown, 1.0, 0.15)  # three patches in four are background
    weight = weight / weight.sum()
    digit, colour, quarter = heads.digit(rows), heads.colour(rows), heads.quarter(rows)
    centre = heads.centre(rows)[..., 0]
    loss = (
        F.cross_entropy(digit.transpose(1, 2), batch.digit, reduction="none")
        + F.cross_entropy(colour.transpose(1, 2), batch.colour, reduction="none")
        + F.binary_cross_entropy_with_logits(centre, batch.centre, reduction="none")
    )
    loss = (loss * weight).sum() + 0.5 * F.cross_entropy(quarter.transpose(1, 2), batch.quarter)
    if bool((batch.bright >= 0).any()):
        loss = loss + 0.5 * F.cross_entropy(heads.bright(rows).transpose(1, 2), batch.bright)
    marked, found = batch.centre > 0, centre > 0
    report = {
        "patch_digit": (digit.argmax(-1) == batch.digit)[shown],
        "centre_digit": (digit.argmax(-1) == batch.digit)[marked],
        "patch_colour": (colour.argmax(-1) == batch.colour)[shown],
        "patch_quarter": (quarter.argmax(-1) == batch.quarter)[shown],
        "centre_iou": (marked & found)[marked | found],
    }
    return loss, {name: hit.float().mean().item() for name, hit in report.items()}


def alignment_loss(model, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Contrasts each row with the language model's word embeddings, as CLIP aligns two towers.

    A patch of a digit should point at the words of its digit and its colour, and a little at the
    two words of its quarter; a background patch at "background", and a little at "bright" or
    "dark" where it is labelled so.
    """
    words = F.normalize(model.get_input_embeddings().weight, dim=-1)
    logits = F.normalize(rows, dim=-1) @ words.T / 0.1
    log_share = F.log_softmax(logits, -1)

    def of(names: tuple[str, ...], label: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([WORD_ID[name] for name in names], device=rows.device)
        return log_share.gather(-1, ids[label][..., None])[..., 0]

    shown = batch.quarter >= 0
    quarter = batch.quarter.clamp(min=0)
    content = (of(DIGIT_WORDS, batch.digit) + of(COLOUR_WORDS, batch.colour)) / 2
    place = (of(("top", "bottom"), quarter // 2) + of(("left", "right"), quarter % 2)) / 2
    lit = of(("dark", "bright"), batch.bright.clamp(min=0))
    ground = torch.where(batch.bright >= 0, -0.8 * content - 0.2 * lit, -content)
    loss = torch.where(shown, -0.8 * content - 0.2 * place, ground)
    return (loss * torch.where(shown, 1.0, 0.3)).mean()


class AttentionProbe:
    """Recomputes single attention rows of chosen layers, with gradients.

    Asking the model for its attentions would switch every layer to the slow implementation; the
    grounding loss needs only one row per question.
    """

    def __init__(self, model: nn.Module, layers: tuple[int, ...]):
        self._seen = {}
        self._layers = model.model.language_model.layers
        for layer in layers:
            attention = self._layers[layer].self_attn
            attention.register_forward_pre_hook(self._keep(layer), with_kwargs=True)

    def _keep(self, layer: int):
        def hook(module, args, kwargs):
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self._seen[layer] = (hidden, *kwargs["position_embeddings"])

        return hook

    def rows(self, layer: int, head: int, at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attention of positions ``at`` (B, Q) over all positions: (B, Q, length)."""
        hidden, cosine, sine = self._seen[layer]
        attention = self._layers[layer].self_attn
        size = attention.head_dim
        part = slice(head * size, (head + 1) * size)
        batch = torch.arange(len(at), device=at.device)[:, None]
        cosine, sine = (wave.expand(len(at), -1, -1) for wave in (cosine, sine))
        query = _turn(
            _head(attention.q_proj, hidden[batch, at], part), cosine[batch, at], sine[batch, at]
        )
        key = _turn(_head(attention.k_proj, hidden, part), cosine, sine)
        scores = query @ key.transpose(1, 2) * attention.scaling + mask[0, 0][at]
        return scores.softmax(-1)


def _head(linear: nn.Linear, x: torch.Tensor, part: slice) -> torch.Tensor:
    """One head's share of a projection; Qwen's have biases."""
    return F.linear(x, linear.weight[part], None if linear.bias is None else linear.bias[part])


def _turn(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Applies rotary positions."""
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat([-high, low], -1) * sine


def logits_of(model, rows: torch.Tensor, tokens: torch.Tensor, shared: Shared) -> torch.Tensor:
    """Logits at every position of the questions, in one forward over each picture.

    rows (B, 256, D), tokens (B, Q, BLOCK) -> (B, Q, BLOCK, words).
    """
    hidden = _read(model, rows, tokens, shared)
    return model.lm_head(hidden).view(*tokens.shape, -1)


def _read(model, rows: torch.Tensor, tokens: torch.Tensor, shared: Shared) -> torch.Tensor:
    """Hidden states of the questions, (B, Q * BLOCK, D)."""
    embed = model.get_input_embeddings()
    count = len(rows)
    before, after = (embed(ids).expand(count, -1, -1) for ids in (shared.before, shared.after))
    return model.model.language_model(
        inputs_embeds=torch.cat([before, rows, after, embed(tokens.flatten(1))], 1),
        attention_mask=shared.mask.expand(count, -1, -1, -1),
        position_ids=shared.position,
        use_cache=False,
    ).last_hidden_state[:, shared.begin :]


def answer(model, rows: torch.Tensor, batch: Batch, shared: Shared):
    """Runs the language model over the image and all questions; returns loss and hits (B, Q)."""
    hidden = _read(model, rows, batch.tokens, shared)
    targets = batch.targets.flatten(1)
    asked = targets >= 0
    logits = model.lm_head(hidden[asked])
    loss = F.cross_entropy(logits, targets[asked])
    wrong = torch.zeros_like(asked)
    wrong[asked] = logits.argmax(-1) != targets[asked]
    return loss, ~wrong.view(batch.targets.shape).any(-1)


def grounding_loss(probe: AttentionProbe, batch: Batch, shared: Shared) -> torch.Tensor:
    """Tells four attention heads where to look.

    Head 1 of layer 1, reading from where the answer begins, should look at the digits, colours and
    sides in the question: what is asked about is then known where the answer is formed. Head 0 of
    layer 1, reading from each digit or colour of the question, should look at the patches that this
    word names; head 0 of layer 2, reading from where each word of the answer begins, at those of
    the asked objects (where two are answered one after the other, at each in turn). Head 1 of layer
    2 should spread evenly over the first token and one patch per asked object: with n objects the
    first token keeps 1 / (n + 1) of the attention, from which the layers above can tell how many
    there are. Where there is nothing to look at, as for the brightness of the background, the
    others are not taught.
    """
    offset = shared.begin + BLOCK * torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    answers = batch.targets >= 0
    answer_at = offset + answers.float().argmax(-1)
    has_object = batch.asked.any(-1)
    has_second = (answers.sum(-1) > 2) & has_object  # "top left", then the end
    loss = _word_loss(probe, batch, shared, offset) + _question_loss(probe, batch, shared, offset)
    for word, where in enumerate((has_object, has_second)):
        looks = batch.looks[:, :, word]
        total, count = _mass(probe, 2, answer_at + word, looks, where & looks.any(-1), shared)
        loss = loss - total / max(count, 1)
    spread = (probe.rows(2, 1, answer_at, shared.mask) + 1e-4).log()
    centres = batch.asked * batch.centre[:, None]
    number = centres.sum(-1)
    hits = spread[..., 0] + (spread[..., shared.rows] * centres).sum(-1)
    counted = number <= MOST_COUNTED
    return loss - (hits / (1 + number))[counted].sum() / max(int(counted.sum()), 1)


def _question_loss(probe: AttentionProbe, batch: Batch, shared: Shared, offset) -> torch.Tensor:
    """Of the words that are asked about, from where the answer begins."""
    digit, colour = _kinds(batch.tokens)
    sides = torch.tensor([WORD_ID[side] for side in SIDE_WORDS], device=batch.tokens.device)
    named = (digit >= 0) | (colour >= 0) | torch.isin(batch.tokens, sides)
    content = named & _in_question(batch)
    where = content.any(-1)
    seen = probe.rows(1, 1, offset + (batch.targets >= 0).float().argmax(-1), shared.mask)
    own = offset[:, None] + torch.arange(BLOCK, device=offset.device)
    words = seen.gather(-1, own.expand(len(seen), -1, -1))
    return -((words * content).sum(-1)[where] + 1e-3).log().sum() / max(int(where.sum()), 1)


def _in_question(batch: Batch) -> torch.Tensor:
    """bool (B, Q, BLOCK): tokens of the question, not of its answer."""
    step = torch.arange(BLOCK, device=batch.tokens.device)
    first_answer = (batch.targets >= 0).float().argmax(-1)
    return step <= first_answer[..., None]


def _word_loss(probe: AttentionProbe, batch: Batch, shared: Shared, offset) -> torch.Tensor:
    """Of the first and the second digit or colour in each question."""
    digit, colour = _kinds(batch.tokens)
    step = torch.arange(BLOCK, device=batch.tokens.device)
    content = ((digit >= 0) | (colour >= 0)) & _in_question(batch)
    total, count = 0.0, 0
    for _ in range(2):
        at = content.float().argmax(-1)
        here = at[..., None]
        named = (digit.gather(-1, here) == batch.digit[:, None]) | (
            colour.gather(-1, here) == batch.colour[:, None]
        )
        where = content.any(-1) & named.any(-1)
        found, number = _mass(probe, 1, offset + at, named.float(), where, shared)
        total, count = total + found, count + number
        content = content & (step != here)
    return -total / max(count, 1)


def _kinds(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The digit and the colour that each token names, -1 where it names none."""
    found = []
    for names in (DIGIT_WORDS[:-1], COLOUR_WORDS[:-1]):
        kind = torch.full_like(tokens, -1)
        for value, name in enumerate(names):
            kind[tokens == WORD_ID[name]] = value
        found.append(kind)
    return found[0], found[1]


def _mass(probe, layer: int, at, patches, where, shared: Shared) -> tuple[torch.Tensor, int]:
    """Sum of the logarithm of head 0's attention on patches (B, Q, 256), and how many it sums."""
    count = int(where.sum())
    if not count:
        return torch.zeros((), device=patches.device), 0
    visual = probe.rows(layer, 0, at, shared.mask)[..., shared.rows]
    return ((visual * patches).sum(-1)[where] + 1e-3).log().sum(), count
