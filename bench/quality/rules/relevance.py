"""Rules of relevance and diversity: they compare rows with the question and with each other."""

import math

import torch
from torch.nn import functional

from .contract import Sight, needs_text, rule
from .numbers import SLACK, cosines, greedy, highest, settled, unit

RANK_SLACK = {torch.float64: SLACK, torch.float32: 1e-5}  # a residual below it is rounding


@rule("CDPruner", "2506.10967")
def cdpruner(sight: Sight, k: int, generator) -> torch.Tensor:
    """A determinantal point process (DPP) conditioned on the question, its greedy maximum.

    Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token
    Pruning in MLLMs" (arXiv 2506.10967), section 3: the kernel L of cosines between rows
    (equation 3), relevance r_i = cos(v_i, t) to one text vector t (5), min-max normalised (6),
    L~ = diag(r~) L diag(r~) (7), and log det L~_S = sum_S log r~_i^2 + log det L_S (8), maximised
    by the fast greedy method of Chen et al. (arXiv 1709.05135), which is exact: each step takes the
    row that raises the determinant most. Checked against the text of the paper's section 3, its
    equations as restated beside it.

    Of its two ways to get vectors this is the one for models without a paired text encoder: rows
    after the projector and the mean of the question's word embeddings. For LLaVA the paper uses
    CLIP's text encoder, which the models studied here do not have.

    Left open and decided: equal relevances, or no text, make r~ = 1. The row of the lowest
    relevance has r~ = 0, zero rows have L_ii = 0, and beyond the rank of L every determinant is
    zero: such rows come last, by relevance.
    """
    rows = unit(sight.visual)
    kernel = rows @ rows.T  # not rounded: it is inverted
    left = _min_max(sight)  # relevance, -inf for chosen rows
    log_relevance = 2 * left.log()
    # Cholesky factors of L rather than of L~, whose small entries would drown in rounding:
    # det L~_S is det L_S times the r~^2, and so is each step's gain.
    factors = rows.new_empty(k, len(rows))
    residual = kernel.diagonal().clone()
    slack = RANK_SLACK[rows.dtype]

    def gains() -> torch.Tensor:
        gain = log_relevance + functional.threshold(residual, slack, 0.0).log()
        return torch.where(gain.max() > -math.inf, gain, left)

    def after(_, best: torch.Tensor, count: int) -> torch.Tensor:
        left.index_fill_(0, best, -math.inf)
        step = count - 1
        row, before = kernel.index_select(0, best)[0], factors[:step]
        against = row - before.T @ before.index_select(1, best)[:, 0]
        # A residual below the slack is of a row chosen by relevance: all gains are -inf, and stay.
        scale = residual.index_select(0, best).clamp_(min=slack).sqrt_()
        factor = torch.div(against, scale, out=factors[step])
        residual.sub_(factor * factor)  # the chosen row's becomes 0
        return gains()

    return greedy(k, gains(), after)


def _min_max(sight: Sight) -> torch.Tensor:
    """(N) in [0, 1]: cosines to the mean word embedding, min-max normalised."""
    if sight.text.shape[0] == 0:
        return torch.ones_like(sight.visual[:, 0])
    score = cosines(sight.visual, sight.text.mean(0, keepdim=True))[:, 0]
    span = score.max() - score.min()
    return torch.where(span > SLACK, (score - score.min()) / span, 1.0)


@rule("TrimTokenator", "2509.00320")
def trimtokenator(sight: Sight, k: int, generator, candidates: float = 2.0) -> torch.Tensor:
    """The rows nearest to the question, and of these the most spread out.

    Zhang et al., "TrimTokenator: Towards Adaptive Visual Token Pruning for Large Multimodal Models"
    (arXiv 2509.00320). NOT verified against the paper's text, which could not be read; its abstract
    and summaries say: the mutual information of a row with the text is approximated through an L2
    norm, rows far from the text go; among the rest a greedy algorithm maximises the expected
    pairwise distance.

    Decided: the first stage keeps the `candidates` * k rows of the smallest Euclidean distance to
    the mean word embedding. The second adds, k times, the row with the largest mean cosine
    distance to those chosen (the distance that the authors' later paper on long contexts uses for
    diversity); the first is the one with the largest mean distance to all candidates.
    """
    needs_text(sight, "TrimTokenator")
    away = settled((sight.visual - sight.text.mean(0)).norm(dim=1))
    pool = min(sight.visual.shape[0], max(k, round(candidates * k)))
    near = highest(-away, pool).sort().values
    rows = sight.visual[near]
    distance = 1 - cosines(rows, rows)
    spread = distance.mean(1)
    distance.fill_diagonal_(-math.inf)  # a chosen row is never chosen again
    total = torch.zeros_like(spread)

    def after(_, best: torch.Tensor, count: int) -> torch.Tensor:
        return total.add_(distance.index_select(0, best)[0]) / count

    return near[greedy(k, spread, after)]


@rule("MMTok", "2508.18264")
def mmtok(
    sight: Sight,
    k: int,
    generator,
    text_temperature: float = 0.02,
    vision_temperature: float = 0.2,
    alpha: float = 0.5,
) -> torch.Tensor:
    """The rows that cover the words and the whole image best.

    Dong et al., "MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs" (arXiv
    2508.18264), section 3.1: f(S; M) = mean over rows i of max_{j in S} M_ij (equation 1), for
    M^tv of cosines between words and visual rows and M^vv between visual rows, each row a softmax
    over all visual rows with temperatures 0.02 and 0.2; f(S; M^tv) + alpha f(S; M^vv) (2), alpha
    0.5, maximised greedily (algorithm 2). Checked against the paper's text.

    The paper takes M^vv from the rows before the projector; here all rules see the rows after it.

    Left open: f of nothing is 0; without text only the image is covered.
    """
    table = coverage(sight, text_temperature, vision_temperature, alpha)
    covered = torch.zeros_like(table[:, 0])

    def after(gains: torch.Tensor, best: torch.Tensor, count: int) -> torch.Tensor:
        now = table.index_select(1, best)[:, 0]
        # Only the rows that are covered better now change what any other choice would gain. They
        # are few, which is worth waiting for the device to know their number.
        better = (now > covered).nonzero()[:, 0]
        low, high = (of.index_select(0, better) for of in (covered, now))
        row = table.index_select(0, better).clamp_(low[:, None], high[:, None])
        lost = row.sum(0) - low.sum()
        torch.maximum(covered, now, out=covered)
        return gains.sub_(lost).index_fill_(0, best, -math.inf)

    return greedy(k, table.sum(0), after)


def coverage(sight: Sight, text_temperature, vision_temperature, alpha) -> torch.Tensor:
    """(M + N, N): f(S) of MMTok is the sum over rows of the largest entry in S."""
    words = (cosines(sight.text, sight.visual) / text_temperature).softmax(1)
    image = (cosines(sight.visual, sight.visual) / vision_temperature).softmax(1)
    return torch.cat([words.div_(max(1, len(words))), image.mul_(alpha / len(image))])
