"""A few of the pairs, kept whole to measure a critic on."""

import torch

_PAIRS = _ROWS = 64
_ROUNDING = 1e-9  # of cosines: rows are float32. Two pairs alone have no spread at all


class Sample:
    """The first 64 pairs, each with 64 of its visual rows, evenly spaced.

    pairs: (visual (n, D), text (M, D), logits (M, n) or None).
    """

    def __init__(self):
        self.pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def add(self, pair) -> None:
        """pair: observe.Observation."""
        if len(self.pairs) == _PAIRS:
            return
        some = slice(None, None, -(-len(pair.visual) // _ROWS))
        logits = None if pair.logits is None else pair.logits[:, some].clone()
        self.pairs.append((pair.visual[some].clone(), pair.text, logits))

    def matching(self, matrix: torch.Tensor) -> float:
        """By how many standard deviations a picture and its own text stand above pictures and other
        texts; 0 is chance.

        A picture and a text are compared as the pruner will use them: for each word the row with
        the largest s_ij, then the mean over words (the similarity of Yao et al., "FILIP:
        Fine-grained Interactive Language-Image Pre-Training", ICLR 2022, equation 4). What all
        texts of a picture, or all pictures of a text, have in common is taken off: it says nothing
        about which belongs to which.

        Args:
            matrix: A, (D, D).
        """
        visual = [rows.double() for rows, _, _ in self.pairs]
        matrix = matrix.double()
        mapped = [text.double() @ matrix for _, text, _ in self.pairs]
        scores = torch.stack([_similarities(words, visual) for words in mapped])
        scores = scores - scores.mean(0) - scores.mean(1, keepdim=True) + scores.mean()
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        others = scores[~own]
        spread = others.std()
        return float((scores[own].mean() - others.mean()) / spread) if spread > _ROUNDING else 0.0

    def correlation(self, matrix: torch.Tensor) -> float:
        """Of t_j^T A v_i with the logits l_ij, each less its mean over i."""
        both = torch.cat([_compare(matrix, *pair) for pair in self.pairs], dim=1)
        predicted, seen = both
        scale = predicted.norm() * seen.norm()
        return float(predicted @ seen / scale) if scale > 0 else 0.0


def _similarities(mapped: torch.Tensor, visual: list[torch.Tensor]) -> torch.Tensor:
    """float64 (pairs): of one text, its rows mapped by the critic, with every picture."""
    words = torch.nn.functional.normalize(mapped, dim=-1)
    return torch.stack([(words @ rows.T).amax(1).mean() for rows in visual])


def _compare(matrix, visual, text, logits) -> torch.Tensor:
    """float64 (2, M * n): the critic's values and the logits."""
    both = torch.stack([text.double() @ matrix @ visual.double().T, logits.double()])
    return (both - both.mean(2, keepdim=True)).flatten(1)
