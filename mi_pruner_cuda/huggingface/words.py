"""Which word of the question each visual row says most about."""

import math

import torch
from torch.nn import functional


def speaks_for(visual: torch.Tensor, text: torch.Tensor, temperature: float) -> torch.Tensor:
    """The word with the largest share in a row's information about the question.

    A row's relevance is a sum over words, P(t_j | v_i) log(P(t_j | v_i) / P(t_j)) with estimator
    "specific"; this is its largest term. P(t_j) is taken over all rows of the image, whatever
    shared a budget, row breaks too.

    Args:
        visual: (N, D), an image's rows.
        text: (M, D), M >= 1.
        temperature: tau > 0.

    Returns:
        int64 (N) into the words; -1 for rows that are not finite.
    """
    finite = visual.isfinite().all(-1)
    if not bool(finite.any()):
        return torch.full((len(visual),), -1, dtype=torch.int64, device="cpu")
    # In float64, which neither autocast nor torch's precision of float32 products touches.
    rows = functional.normalize(visual[finite].double(), dim=-1)
    similarities = rows @ functional.normalize(text.double(), dim=-1).T
    given = (similarities / temperature).log_softmax(1)
    overall = given.logsumexp(0) - math.log(len(rows))
    said = torch.full((len(visual),), -1, dtype=torch.int64, device=visual.device)
    said[finite] = (given.exp() * (given - overall)).argmax(1)
    return said.cpu()
