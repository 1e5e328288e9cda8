"""Rules of attention: they rank rows by maps that the model itself computes."""

import math
from heapq import heapify, heappop, heapreplace

import torch

from .contract import Sight, check, rule
from .numbers import cosines, highest, without


@rule("FasterVLM", "2412.01818v1", {"cls_attention"})
def fastervlm(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows that [CLS] looks at most.

    Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning" (arXiv
    2412.01818, version 1): the k largest of the attention from [CLS], in the vision tower's layer
    that feeds the projector, mean over heads. Checked against the abstract and summaries only.
    """
    return highest(sight.cls_attention, k)


@rule("VisPruner", "2412.01818", {"cls_attention"})
def vispruner(sight: Sight, k: int, generator, important: float = 0.5) -> torch.Tensor:
    """The rows that [CLS] looks at most, and of the rest those left when duplicates are removed.

    Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning
    in VLMs" (arXiv 2412.01818, later versions). NOT verified against the paper's text, which could
    not be read; its abstract says: visual attention selects a limited number of significant tokens,
    then duplicates are removed from the remaining ones based on their similarity.

    Decided: half of k by attention, halves up. Of the rest, one row at a time goes until k are
    left: of the two most similar rows (cosine) the later one. The paper removes several at once to
    save time, which changes what a removed row was compared with.
    """
    count = math.floor(important * k + 0.5)
    first = highest(sight.cls_attention, count)
    if count == k:  # of k = 1
        return first
    others = without(first, sight.visual.shape[0])
    removed = _later_of_closest(sight.visual[others], len(others) - (k - count))
    return torch.cat([first, others[~removed]])


def _later_of_closest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """bool (N): `count` rows, each in its turn the later one of the most similar pair left.

    Keeps for each row the most similar later row that is left. When that one goes, the next is
    looked for only when the row's turn comes: until then its old similarity bounds the new.
    """
    pairs = cosines(rows, rows)
    pairs = pairs.masked_fill_(torch.ones_like(pairs, dtype=torch.bool).tril_(), -math.inf)
    barrier = torch.zeros_like(pairs[0])  # -inf for removed rows
    similarity, partner = (found.tolist() for found in pairs.max(1))  # the first of equal ones
    turns = [(-value, row) for row, value in enumerate(similarity)]
    heapify(turns)
    removed = [False] * len(rows)
    while count:
        row = turns[0][1]
        if removed[row]:
            heappop(turns)
        elif removed[partner[row]]:
            value, place = (pairs[row] + barrier).max(0)
            partner[row] = int(place)
            heapreplace(turns, (-float(value), row))
        else:
            removed[partner[row]] = True
            barrier[partner[row]] = -math.inf
            count -= 1
    return barrier < 0


@rule("FastV", "2403.06764", {"text_attention"})
def fastv(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows that the prompt looks at most in the language model's second layer.

    Chen et al., "An Image is Worth 1/2 Tokens After Layer 2" (arXiv 2403.06764), section 4.1: rows
    are ranked by "the average attention-score one token received from all other tokens" at layer K
    (2), mean over heads, and the last ones pruned in the layers after it. Checked against the
    paper's text.

    Here rows are dropped before the language model: this is an oracle of what FastV would keep, as
    it has seen K layers of the unpruned prompt for nothing, and its kept rows lose what they could
    have gathered from the dropped ones in those layers. Eyes decides which tokens' attention
    counts: of the last one of the prompt, or of all (the paper's words).
    """
    return highest(sight.text_attention, k)


def _contextual(k: int) -> int:
    """How many of VisionZip's k are contextual: 10 of 64, 20 of 128, 30 of 192."""
    return math.floor(k * 10 / 64 + 0.5)


def visionzip_rows(sight: Sight, k: int) -> torch.Tensor:
    """VisionZip's k rows, float64 (k, D) on the CPU, in the order of its choose: with merging.

    Every row that is neither dominant nor a target joins the target whose key is most similar
    (cosine, ties to the lower index); a target becomes the mean of its group, itself included.

    Left open: the paper merges the tower's rows before the projector, here the projector's are
    merged; keys are the mean over heads, as in ToMe, on which the step is built.
    """
    check(sight, k, "VisionZip with merging", frozenset({"cls_attention", "keys"}))
    sight = sight.to(torch.float64, "cpu")
    dominant, targets = visionzip_parts(sight, k)
    rows = sight.visual.clone()
    if len(targets):
        joining = without(torch.cat([dominant, targets]), len(rows))
        to = cosines(sight.keys[joining], sight.keys[targets]).argmax(1)  # the first of equal ones
        sums = sight.visual[targets].index_add(0, to, sight.visual[joining])
        rows[targets] = sums / (1 + to.bincount(minlength=len(targets)))[:, None]
    return rows[torch.cat([dominant, targets]).sort().values]


def visionzip_parts(sight: Sight, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(dominant rows, targets of the merging), int64, k together."""
    count = _contextual(k)
    dominant = highest(sight.cls_attention, k - count)
    others = without(dominant, sight.visual.shape[0])
    places = torch.arange(count, device=others.device) * len(others) // max(1, count)
    return dominant, others[places]


@rule("VisionZip", "2412.04467", {"cls_attention"}, rows=visionzip_rows)
def visionzip(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows that [CLS] looks at most, and a few spread over the rest: without merging.

    Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models" (arXiv
    2412.04467), section 3: dominant tokens by the attention from [CLS] (without one, by the mean
    attention received); of the remaining tokens, targets are sampled uniformly and every other one
    is merged into the target of the most similar key. 54 dominant and 10 contextual tokens make 64,
    108 and 20 make 128, 162 and 30 make 192. Checked against summaries of the paper, not against
    its own text.

    Merging changes rows, which a choice of rows cannot: here the targets stay as they are.
    RULES["VisionZip"].rows gives the merged rows.

    Left open and decided: 10 / 64 of k are contextual, halves up; target i of c is the rest's row
    floor(i R / c) of R. The paper counts [CLS] among the kept tokens; it is no row here.
    """
    return torch.cat(visionzip_parts(sight, k))
