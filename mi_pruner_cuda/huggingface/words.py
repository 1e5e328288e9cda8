"""Which word of the question each visual row says most about."""

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
        return torch.full((len(visual),), -1, dtype=torch.long)
    rows = functional.normalize(visual[finite].float(), dim=-1)
    with torch.autocast(rows.device.type, enabled=False):
        similarities = rows @ functional.normalize(text.float(), dim=-1).T
    given = (similarities / temperature).log_softmax(1)
    overall = given.logsumexp(0) - torch.tensor(float(len(rows))).log()
    said = torch.full((len(visual),), -1, dtype=torch.long, device=visual.device)
    said[finite] = (given.exp() * (given - overall)).argmax(1)
    return said.cpu()
