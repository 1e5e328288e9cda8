"""The published training-free rules for choosing visual tokens, to compare our selection with.

    from baselines import RULES, selector
    from eyes import Eyes

    rule = RULES["FasterVLM"]
    with Eyes(model) as eyes, attach(model, keep=0.25, selector=selector(rule, eyes)):
        model.generate(**inputs)

Each rule is written from its paper's formulas. Its docstring names the paper and the place, says
what the formula leaves open and how that was decided here, and says so where the paper itself could
not be read. All rules obey one contract, which their papers do not always promise: exactly k
distinct rows, ascending, ties to the lower index, the same rows for the same generator state. All
see the same things: rows after the projector, the question's word embeddings, attention maps of the
unpruned model. They run on the CPU in double precision: they are compared by accuracy, not by
speed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from eyes import Eyes, View

from mi_pruner_cuda import Selection
from mi_pruner_cuda.budget import resolve

MAPS = frozenset({"cls_attention", "keys", "text_attention"})

# Equal rows must tie, but a matrix product may round them differently. Cosines are rounded to this
# many decimals, and sums that differ by less than SLACK are equal.
DECIMALS = 12
SLACK = 1e-10


@dataclass(frozen=True)
class Sight:
    """All that a rule may look at, for one image and one question.

    visual: (N, D), rows after the projector; text: (M, D), the question's word embeddings.
    The rest is as in View.
    """

    visual: torch.Tensor
    text: torch.Tensor
    cls_attention: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    text_attention: torch.Tensor | None = None
    grid: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises ValueError naming the field, what was given and what is allowed."""
        n = self.visual.shape[0]
        if self.visual.dim() != 2 or n == 0:
            raise ValueError(f"visual: got {tuple(self.visual.shape)}, allowed is (N >= 1, D)")
        if self.text.dim() != 2 or self.text.shape[1] != self.visual.shape[1]:
            width = self.visual.shape[1]
            raise ValueError(f"text: got {tuple(self.text.shape)}, allowed is (M, {width})")
        for name in ("visual", "text", *sorted(MAPS)):
            value = getattr(self, name)
            if value is not None and not bool(value.isfinite().all()):
                raise ValueError(f"{name}: got NaN or infinity, allowed are finite numbers")
        for name in sorted(MAPS):
            value = getattr(self, name)
            dim = 2 if name == "keys" else 1
            if value is not None and (value.dim() != dim or value.shape[0] != n):
                allowed = f"({n}, Dk)" if name == "keys" else f"({n},)"
                raise ValueError(f"{name}: got {tuple(value.shape)}, allowed is {allowed}")
        if self.grid is not None and math.prod(self.grid) != n:
            raise ValueError(f"grid: got {self.grid}, allowed is (h, w) with h * w = {n}")

    def double(self) -> "Sight":
        """The same, in double precision on the CPU."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "grid"}
        return replace(self, **{k: v.detach().cpu().double() for k, v in tensors.items() if _is(v)})


def _is(value) -> bool:
    return value is not None


Pick = Callable[[Sight, int, torch.Generator | None], torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """A way of choosing rows.

    name: as in its paper; paper: its arXiv id, or "" for what needs none.
    needs: the maps of View that it looks at.
    pick: (sight, k, generator) -> int64 (k), distinct, in any order.
    rows: for a rule that changes what it keeps, (sight, k) -> its k rows (k, D), in the order of
        what choose returns; None for all others.
    """

    name: str
    paper: str
    needs: frozenset[str]
    pick: Pick
    rows: Callable[[Sight, int], torch.Tensor] | None = None

    def choose(
        self, sight: Sight, k: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """int64 (k), ascending and distinct.

        Args:
            sight: the image and the question.
            k: in [1, N].
            generator: on the CPU; None takes torch's own.

        Raises:
            ValueError: naming the argument, what was given and what is allowed.
        """
        sight = _checked(sight, k, self.name, self.needs)
        return self.pick(sight, k, generator).sort().values


def _checked(sight: Sight, k: int, name: str, needs: frozenset[str]) -> Sight:
    """The sight in double precision, if the rule can work with it."""
    sight.check()
    n = sight.visual.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k: got {k!r}, allowed is an integer in [1, {n}]")
    for need in sorted(needs):
        if getattr(sight, need) is None:
            raise ValueError(f"{need}: got None, allowed is a tensor: {name} looks at it")
    return sight.double()


RULES: dict[str, Rule] = {}


def _rule(name: str, paper: str = "", needs=(), rows=None) -> Callable[[Pick], Pick]:
    """Enters a function in RULES."""

    def enter(pick: Pick) -> Pick:
        RULES[name] = Rule(name, paper, frozenset(needs), pick, rows)
        return pick

    return enter


# What several rules share.


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a zero row stays zero."""
    norm = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(A, D), (B, D) -> (A, B). A zero row has cosine 0 with every row, itself too."""
    return (unit(a) @ unit(b).T).round(decimals=DECIMALS)


def highest(values: torch.Tensor, k: int) -> torch.Tensor:
    """int64 (k): the places of the k largest, ties to the lower index."""
    return values.argsort(descending=True, stable=True)[:k]


def first_best(values: torch.Tensor, allowed: torch.Tensor) -> int:
    """The place of the largest allowed value; among values equal up to SLACK the lowest place.

    Args:
        values: float64 (N), may be -inf.
        allowed: bool (N), at least one.
    """
    best = values[allowed].max()
    return int(((values >= best - SLACK) & allowed).nonzero()[0])


def greedy(k: int, n: int, gains: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
    """k times the row with the largest gain, given those chosen before. int64 (k), in that order.

    Args:
        gains: rows chosen so far -> float64 (n).
    """
    chosen: list[int] = []
    left = torch.ones(n, dtype=torch.bool)
    for _ in range(k):
        chosen.append(first_best(gains(chosen), left))
        left[chosen[-1]] = False
    return torch.tensor(chosen)


def without(taken: torch.Tensor, sight: Sight) -> torch.Tensor:
    """int64: the rows that are not taken, ascending."""
    left = torch.ones(sight.visual.shape[0], dtype=torch.bool)
    left[taken] = False
    return left.nonzero()[:, 0]


def _needs_text(sight: Sight, name: str) -> None:
    if sight.text.shape[0] == 0:
        raise ValueError(f"text: got 0 rows, allowed is at least 1: {name} compares rows with it")


# Rules that look at nothing, or at the question alone.


@_rule("random")
def random(sight: Sight, k: int, generator) -> torch.Tensor:
    """Any k rows, each set as likely as the next."""
    return torch.randperm(sight.visual.shape[0], generator=generator)[:k]


@_rule("uniform grid")
def uniform_grid(sight: Sight, k: int, generator) -> torch.Tensor:
    """k rows spread over the grid: nearly equal lines of nearly equal distances.

    Without a grid the rows are a square if their number is one, else a single line.
    """
    height, width = sight.grid or square(sight.visual.shape[0])
    wanted = max(1, round(math.sqrt(k * height / width)))
    lines = max(math.ceil(k / width), min(height, wanted))
    chosen = []
    for line in range(lines):
        # As array_split: the first lines get one more where k is no multiple.
        count = k // lines + (line < k % lines)
        y = int((line + 0.5) * height / lines)
        chosen += [y * width + int((x + 0.5) * width / count) for x in range(count)]
    return torch.tensor(chosen)


def square(n: int) -> tuple[int, int]:
    """(side, side) if n is a square, else (1, n)."""
    side = math.isqrt(n)
    return (side, side) if side * side == n else (1, n)


@_rule("maximum cosine")
def maximum_cosine(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows most similar to any word of the question: the k largest max_j cos(v_i, t_j)."""
    _needs_text(sight, "maximum cosine")
    return highest(cosines(sight.visual, sight.text).amax(1), k)


# Rules of diversity.


@_rule("DivPrune", "2503.02175")
def divprune(sight: Sight, k: int, generator) -> torch.Tensor:
    """The subset whose closest pair is farthest apart, greedily.

    Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models"
    (arXiv 2503.02175), the max-min diversity problem of equation 3 with the cosine distance
    d(a, b) = 1 - cos(a, b) of equation 4, solved as in algorithm 1: first the row whose nearest
    other row is farthest, then, k - 1 times, the row whose nearest chosen row is farthest. The
    equations were checked against a summary of the paper, not against its own text.

    Left open: ties (lower index) and zero rows, which are at distance 1 from every row.
    """
    n = sight.visual.shape[0]
    distance = 1 - cosines(sight.visual, sight.visual)
    others = distance.masked_fill(torch.eye(n, dtype=torch.bool), math.inf)

    def nearest(chosen: list[int]) -> torch.Tensor:
        return distance[:, chosen].amin(1) if chosen else others.amin(1).clamp(max=2.0)

    return greedy(k, n, nearest)


@_rule("DART", "2502.11494")
def dart(sight: Sight, k: int, generator, pivots: int = 8) -> torch.Tensor:
    """Pivots, and the rows that duplicate them least.

    Wen et al., "Stop Looking for Important Tokens in Multimodal Language Models: Duplication
    Matters More" (arXiv 2502.11494), definitions 1 and 2 of section 3.3: dup(p, x) = cos(p, x), a
    pivot p retains R_p = {x : dup(p, x) <= epsilon_p}, and the pivots and the union of all R_p
    stay. Table 1: 8 pivots, those of the largest key norm, after the second layer of the language
    model.

    Left open and decided: here no layer has run, so the pivots are the rows of the largest L1 norm
    among the projector's. epsilon_p is "dynamically determined for each pivot based on reduction
    ratio": it lets every pivot retain the same number of rows, the smallest for which the union
    holds k; of the last row of each, those of the earlier (longer) pivots stay. With k < 8 there
    are k pivots and nothing else. All pivots are visual rows.
    """
    count = min(pivots, k)
    pivot = highest(sight.visual.abs().sum(1).round(decimals=DECIMALS), count)
    others = without(pivot, sight)
    duplication = cosines(sight.visual[pivot], sight.visual[others])
    place = duplication.argsort(dim=1, stable=True).argsort(dim=1)  # of each row with each pivot
    turn = (place * count + torch.arange(count)[:, None]).amin(0)
    return torch.cat([pivot, others[turn.argsort(stable=True)[: k - count]]])


# Rules of relevance and diversity.


@_rule("CDPruner", "2506.10967")
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
    n = sight.visual.shape[0]
    kernel = unit(sight.visual) @ unit(sight.visual).T  # not rounded: it is inverted
    relevance = _min_max(sight)
    # Cholesky factors of L rather than of L~, whose small entries would drown in rounding:
    # det L~_S is det L_S times the r~^2, and so is each step's gain.
    factors = torch.zeros(k, n, dtype=torch.float64)
    residual = kernel.diagonal().clone()
    chosen: list[int] = []
    left = torch.ones(n, dtype=torch.bool)
    for step in range(k):
        gain = 2 * relevance.log() + torch.where(residual > SLACK, residual, 0.0).log()
        finite = bool((gain[left] > -math.inf).any())
        best = first_best(gain if finite else relevance, left)
        chosen.append(best)
        left[best] = False
        if finite:
            against = kernel[best] - factors[:step].T @ factors[:step, best]
            factors[step] = against / residual[best].sqrt()
            residual = residual - factors[step] ** 2
    return torch.tensor(chosen)


def _min_max(sight: Sight) -> torch.Tensor:
    """float64 (N) in [0, 1]: cosines to the mean word embedding, min-max normalised."""
    if sight.text.shape[0] == 0:
        return torch.ones(sight.visual.shape[0], dtype=torch.float64)
    score = cosines(sight.visual, sight.text.mean(0, keepdim=True))[:, 0]
    span = score.max() - score.min()
    return (score - score.min()) / span if span > SLACK else torch.ones_like(score)


@_rule("TrimTokenator", "2509.00320")
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
    _needs_text(sight, "TrimTokenator")
    away = (sight.visual - sight.text.mean(0)).norm(dim=1).round(decimals=DECIMALS)
    pool = min(sight.visual.shape[0], max(k, round(candidates * k)))
    near = highest(-away, pool).sort().values
    distance = 1 - cosines(sight.visual[near], sight.visual[near])

    def spread(chosen: list[int]) -> torch.Tensor:
        return distance[:, chosen].mean(1) if chosen else distance.mean(1)

    return near[greedy(k, pool, spread)]


@_rule("MMTok", "2508.18264")
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
    n = sight.visual.shape[0]
    table = coverage(sight, text_temperature, vision_temperature, alpha)
    covered = torch.zeros(len(table), dtype=torch.float64)

    def gain(chosen: list[int]) -> torch.Tensor:
        if chosen:
            torch.maximum(covered, table[:, chosen[-1]], out=covered)
        return (table - covered[:, None]).clamp(min=0).sum(0)

    return greedy(k, n, gain)


def coverage(sight: Sight, text_temperature, vision_temperature, alpha) -> torch.Tensor:
    """float64 (M + N, N): f(S) of MMTok is the sum over rows of the largest entry in S."""
    words = (cosines(sight.text, sight.visual) / text_temperature).softmax(1)
    image = (cosines(sight.visual, sight.visual) / vision_temperature).softmax(1)
    return torch.cat([words / max(1, len(words)), alpha * image / len(image)])


# Rules of attention.


@_rule("FasterVLM", "2412.01818v1", {"cls_attention"})
def fastervlm(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows that [CLS] looks at most.

    Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning" (arXiv
    2412.01818, version 1): the k largest of the attention from [CLS], in the vision tower's layer
    that feeds the projector, mean over heads. Checked against the abstract and summaries only.
    """
    return highest(sight.cls_attention, k)


@_rule("VisPruner", "2412.01818", {"cls_attention"})
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
    others = without(first, sight)
    pairs = cosines(sight.visual[others], sight.visual[others])
    pairs = pairs.masked_fill(torch.ones_like(pairs).triu(1) == 0, -math.inf)  # each pair once
    left = torch.ones(len(others), dtype=torch.bool)
    for _ in range(len(others) - (k - count)):
        later = int((pairs == pairs.max()).nonzero()[0, 1])
        left[later] = False
        pairs[later] = -math.inf
        pairs[:, later] = -math.inf
    return torch.cat([first, others[left]])


@_rule("FastV", "2403.06764", {"text_attention"})
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
    """VisionZip's k rows, float64 (k, D), in the order of its choose: with merging.

    Every row that is neither dominant nor a target joins the target whose key is most similar
    (cosine, ties to the lower index); a target becomes the mean of its group, itself included.

    Left open: the paper merges the tower's rows before the projector, here the projector's are
    merged; keys are the mean over heads, as in ToMe, on which the step is built.
    """
    sight = _checked(sight, k, "VisionZip with merging", frozenset({"cls_attention", "keys"}))
    dominant, targets = _visionzip_parts(sight, k)
    rows = sight.visual.clone()
    if len(targets):
        joining = without(torch.cat([dominant, targets]), sight)
        similar = cosines(sight.keys[joining], sight.keys[targets])
        to = (
            (similar == similar.amax(1, keepdim=True))
            .int()
            .argsort(dim=1, descending=True, stable=True)[:, 0]
        )
        for place, target in enumerate(targets.tolist()):
            group = torch.cat([torch.tensor([target]), joining[to == place]])
            rows[target] = sight.visual[group].mean(0)
    return rows[torch.cat([dominant, targets]).sort().values]


def _visionzip_parts(sight: Sight, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(dominant rows, targets of the merging), int64, k together."""
    count = _contextual(k)
    dominant = highest(sight.cls_attention, k - count)
    others = without(dominant, sight)
    return dominant, others[[place * len(others) // count for place in range(count)]]


@_rule("VisionZip", "2412.04467", {"cls_attention"}, visionzip_rows)
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
    return torch.cat(_visionzip_parts(sight, k))


def selector(
    rule: Rule, eyes: Eyes | None = None, generator: torch.Generator | None = None
) -> Callable:
    """A rule as attach wants it: selector=selector(rule, eyes, generator).

    Args:
        rule: one of RULES.
        eyes: watches the same model, in its with statement; may be None for rules that look at no
            map, which then take the rows for a square.
        generator: on the CPU, for rules that draw.

    Returns:
        A function of (visual (N, D), text (M, D), keep) that returns a Selection; its scores are 0.

    Raises:
        ValueError: the rule needs maps that nobody gives it.
    """
    if rule.needs and eyes is None:
        needs = ", ".join(sorted(rule.needs))
        raise ValueError(f"eyes: got None, allowed are Eyes: {rule.name} looks at {needs}")
    if "text_attention" in rule.needs and not eyes.has_text:
        raise ValueError(f"eyes: got text_layer None, allowed is a layer: {rule.name} looks at it")

    def select(visual: torch.Tensor, text: torch.Tensor, keep) -> Selection:
        n = visual.shape[0]
        view = View() if eyes is None else eyes.next(n)
        maps = {f.name: getattr(view, f.name) for f in fields(view)}
        indices = rule.choose(Sight(visual, text, **maps), resolve(keep, n), generator)
        return Selection(
            indices.to(visual.device),
            torch.zeros(n, device=visual.device),
            len(indices),
            rule.name,
        )

    return select
