"""The torch ops on one device, "cpu" or what MIPRUNER_TEST_DEVICE names: the numerical contract.

bench/gpu_check.py calls every test here on "cuda", on machines that may have torch and nothing
else: each is a function without arguments. What only a CUDA device can show is defined there only.
"""

import itertools
import math
import os
import random

import torch
from torch.library import opcheck

from mi_pruner_cuda import ops, reference

DEVICE = os.environ.get("MIPRUNER_TEST_DEVICE", "cpu")
ON_CUDA = torch.device(DEVICE).type == "cuda"
# Of each test on random cases. On the CPU other files test the same with many more.
CASES = int(os.environ.get("MIPRUNER_TEST_CASES", "300" if ON_CUDA else "60"))

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ESTIMATORS = ("specific", "posterior", "joint", "cosine")
# Half an ulp of rounding, and one more for a float32 value on the other side of a tie.
UNIT_TOLERANCE = {torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}


# ---- inputs ----


def related(n, m, d, dtype=torch.float32, batch=()):
    """Rows a quarter of which resemble a word: scores with a spread, as real ones have."""
    visual, text = torch.randn(*batch, n, d), torch.randn(*batch, m, d)
    count = min(n // 4, m)
    visual[..., :count, :] += text[..., :count, :]
    visual = visual[..., torch.randperm(n), :]
    return visual.to(DEVICE, dtype), text.to(DEVICE, dtype)


def spoil(rows, choose):
    """Rows [..., N, D] with some zero, huge, tiny or not finite ones."""
    rows = rows.clone()
    flat = rows.view(-1, rows.shape[-1])
    for fault in choose.sample(["zero", "huge", "tiny", "nan", "inf"], choose.randrange(3)):
        row = choose.randrange(len(flat))
        if fault == "zero":
            flat[row] = 0
        elif fault == "huge":
            flat[row] *= torch.finfo(rows.dtype).max / flat[row].abs().max().clamp_min(1).item()
            flat[row].clamp_(-torch.finfo(rows.dtype).max, torch.finfo(rows.dtype).max)
        elif fault == "tiny":
            flat[row] *= 1e-6
        else:
            flat[row, -1] = math.nan if fault == "nan" else -math.inf
    return rows


def laid_out(x, choose):
    """The same values in another layout: misaligned, with gaps, or with columns before rows."""
    *batch, n, d = x.shape
    layout = choose.choice(["contiguous", "wider", "every other row", "column-major"])
    if layout == "wider":
        begin = choose.randrange(1, 9)
        wide = x.new_full((*batch, n, d + choose.randrange(9, 12)), math.nan)
        wide[..., begin : begin + d] = x
        return wide[..., begin : begin + d]
    if layout == "every other row":
        apart = x.new_full((*batch, 2 * n, d), math.nan)
        apart[..., ::2, :] = x
        return apart[..., ::2, :]
    return x.mT.contiguous().mT if layout == "column-major" else x


class Problem:
    """One random call of select, the same for the same seed."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        choose = random.Random(seed)
        batch = choose.choice([(), (), (1,), (3,)])
        n = choose.choice([1, 2, 31, 64, 65, choose.randrange(1, 300)])
        m = choose.choice([1, 2, 17, 64, 65, choose.randrange(1, 140)])
        d = choose.choice([1, 7, 8, 16, 63, 64, 128, 200, choose.randrange(1, 400)])
        visual, text = related(n, m, d, choose.choice(DTYPES), batch)
        self.visual = laid_out(spoil(visual, choose), choose)
        self.text = laid_out(spoil(text, choose), choose)
        self.masks = [
            torch.rand(rows.shape[:-1]) < share if share else None
            for rows, share in [(visual, choose.choice([None, 0.5, 0.9])), (text, None)]
        ]
        if choose.random() < 0.3:
            self.masks[1] = torch.rand(text.shape[:-1]) < 0.7
        self.masks = [None if mask is None else mask.to(DEVICE) for mask in self.masks]
        self.k = choose.choice([1, max(1, n // 4), n, n + 5])
        self.temperature = choose.choice([0.05, 0.1, 1.0])
        self.estimator = choose.choice(ESTIMATORS)

    def select(self, **options):
        return ops.select(self.visual, self.text, self.k, *self.masks, **self.options(), **options)

    def options(self):
        return {"temperature": self.temperature, "estimator": self.estimator}

    def items(self):
        """(visual, text, visual_mask, text_mask) of each item, in host memory."""
        tensors = [None if x is None else x.cpu() for x in (self.visual, self.text, *self.masks)]
        if self.visual.dim() == 2:
            return [tensors]
        return [[None if x is None else x[b] for x in tensors] for b in range(len(self.visual))]


# ---- comparisons ----


def same_bits(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (x.cpu().flatten().view(torch.uint8) for x in (a, b))
    return torch.equal(a, b)


def same(result, expected):
    return all(same_bits(a, b) for a, b in zip(result, expected, strict=True))


def slack(scores, temperature):
    """The contract's 1e-5 of the largest score, and what float32 can resolve beside it."""
    finite = scores[torch.isfinite(scores)].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    resolution = 2.0**-23 * max(4.0, 1 / temperature)
    return 1e-5 * max(1.0, 0.05 / temperature) * largest + resolution


def assert_scores_close(scores, exact, temperature=0.1):
    scores, exact = scores.cpu().double(), exact.cpu().double()
    finite = torch.isfinite(exact)
    assert torch.equal(torch.isfinite(scores), finite)
    assert (scores[~finite] == -math.inf).all()
    error = (scores[finite] - exact[finite]).abs()
    assert (error <= slack(exact, temperature)).all(), (error.max(), slack(exact, temperature))


def usable(visual, mask):
    """Which rows may be kept at all, and which of them are finite."""
    allowed = torch.ones(len(visual), dtype=torch.bool) if mask is None else mask
    return allowed, allowed & torch.isfinite(visual).all(-1)


def assert_well_formed(indices, visual, mask, k):
    """As many distinct ascending rows as there can be, those that are not finite last."""
    allowed, finite = usable(visual, mask)
    assert indices.dtype == torch.int64 and indices.shape == (min(k, len(visual)),)
    kept = indices[indices >= 0]
    assert kept.numel() == min(k, int(allowed.sum()))
    assert (indices[kept.numel() :] == -1).all() and (kept.diff() > 0).all()
    assert allowed[kept].all()
    assert int(finite[kept].sum()) == min(kept.numel(), int(finite.sum()))


def assert_largest_kept(indices, exact, finite, temperature):
    """No finite row that was left out beats one that was kept by more than the tolerance."""
    kept = torch.zeros_like(finite)
    kept[indices[indices >= 0]] = True
    inside, outside = exact[kept & finite], exact[~kept & finite]
    if inside.numel() and outside.numel():
        assert inside.min() >= outside.max() - slack(exact, temperature)


def greedy_margin(visual, scores, order, redundancy, temperature):
    """By how much the closest choice of a greedy selection was won, relative to the gains."""
    table = reference.redundancy_table(visual, temperature)
    penalties = table[:, order].cumsum(1) - table[:, order]  # before each step
    gains = scores[:, None] - redundancy * penalties
    for step in range(1, len(order)):
        gains[order[:step], step] = -math.inf
    best = gains.topk(2, dim=0).values[:, : len(visual) - 1]
    return (best[0] - best[1]).min().item() / gains[torch.isfinite(gains)].abs().max().item()


def message_of(error, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except error as caught:
        return str(caught)
    raise AssertionError(f"no {error.__name__}")


# ---- operators ----


def calls(dtype=torch.float32, batch=()):
    """One call of each operator: (operator, positional arguments, keyword arguments)."""
    visual, text = related(20, 5, 16, dtype, batch)
    masks = {
        "visual_mask": (torch.rand(*batch, 20) > 0.3).to(DEVICE),
        "text_mask": (torch.rand(*batch, 5) > 0.3).to(DEVICE),
    }
    scores = torch.randn(*batch, 20).to(DEVICE)
    kept = torch.tensor([0, 7, 19, -1], device=DEVICE).expand(*batch, 4).contiguous()
    offsets = torch.tensor([0, 6, 20], device=DEVICE)
    ranges = torch.tensor([[0, 5], [1, 3]], device=DEVICE)
    flat, words = visual.flatten(0, -2), text.flatten(0, -2)
    namespace = torch.ops.mipruner
    return [
        (namespace.normalize.default, (visual,), {"eps": 1e-6}),
        (namespace.mutual_information.default, (visual, text), masks),
        (namespace.top_k.default, (scores, 7), {}),
        (namespace.select.default, (visual, text, 6), masks),
        (namespace.select.default, (visual, text, 6), {"redundancy": 0.5}),
        (namespace.select.default, (visual, text, 6), {"coverage": 0.5, **masks}),
        (namespace.select.default, (visual, text, 6), {"redundancy": 0.5, "coverage": 0.5}),
        (namespace.select_varlen.default, (flat, words, offsets, ranges, [3, 9]), {}),
        (
            namespace.select_varlen.default,
            (flat, words, offsets, ranges, [3, 9]),
            {"coverage": 0.5},
        ),
        (namespace.gather_rows.default, (visual, kept), {}),
    ]


def results_of(call):
    operator, arguments, keywords = call
    result = operator(*arguments, **keywords)
    return result if isinstance(result, tuple) else (result,)


def test_opcheck():
    for dtype, batch in zip(DTYPES, [(), (3,), ()], strict=True):
        for operator, arguments, keywords in calls(dtype, batch):
            opcheck(operator, arguments, keywords)


def test_results_are_on_the_device_of_the_rows():
    for call in calls():
        assert all(r.device == call[1][0].device for r in results_of(call))


def test_every_run_gives_the_same_bits():
    for dtype in DTYPES:
        for call in calls(dtype, (3,)):
            expected = results_of(call)
            assert all(same(results_of(call), expected) for _ in range(3))
    visual, text = related(3000, 70, 100)
    for redundancy in (0.0, 0.5):
        expected = ops.select(visual, text, 200, redundancy=redundancy)
        for _ in range(3):
            assert same(ops.select(visual, text, 200, redundancy=redundancy), expected)


# ---- agreement ----


def check_agreement(problem, redundancy):
    """Against the formulas in float64; and against the same operator in host memory."""
    indices, scores = problem.select(redundancy=redundancy)
    width = min(problem.k, problem.visual.shape[-2])
    options, temperature = problem.options(), problem.temperature
    for b, (visual, text, *masks) in enumerate(problem.items()):
        own_indices, own_scores = indices.view(-1, width)[b].cpu(), scores.view(-1, len(visual))[b]
        exact = reference.mutual_information(visual.double(), text.double(), *masks, **options)
        on_host = ops.select(visual, text, problem.k, *masks, redundancy=redundancy, **options)
        assert_scores_close(own_scores, exact, temperature)
        assert_scores_close(own_scores, on_host[1], temperature)
        assert_well_formed(own_indices, visual, masks[0], problem.k)
        if redundancy == 0:
            finite = usable(visual, masks[0])[1]
            assert_largest_kept(own_indices, exact, finite, temperature)
            assert_largest_kept(own_indices, on_host[1], finite, temperature)


def test_random_cases_agree():
    for seed in range(CASES):
        try:
            check_agreement(Problem(seed), redundancy=0.0)
            check_agreement(Problem(seed), redundancy=0.7)
        except AssertionError as error:
            raise AssertionError(f"case {seed}") from error


def test_greedy_choices_agree():
    """The very rows that greedy selection in float64 keeps, where no choice of it was close."""
    decided, cases = 0, max(10, CASES // 2)
    for seed in range(cases):
        torch.manual_seed(seed)
        n, d, redundancy = 5 + seed * 7 % 200, 2 + seed * 5 % 130, (0.1, 0.5, 1.0, 3.0)[seed % 4]
        visual, text = related(n, 1 + seed % 9, d, DTYPES[seed % 3])
        k = 1 + seed * 11 % n
        wide, words = visual.cpu().double(), text.cpu().double()
        scores = reference.mutual_information(wide, words)
        order = reference.greedy(wide, scores, k, redundancy)
        if greedy_margin(wide, scores, order, redundancy, 0.1) < 2e-5:
            continue
        decided += 1
        indices, _ = ops.select(visual, text, k, redundancy=redundancy)
        assert indices.tolist() == sorted(order), f"case {seed}"
    assert decided > cases // 2


def test_text_free_choices_agree():
    for dtype in DTYPES:
        visual, text = related(120, 3, 40, dtype)
        indices, scores = ops.select(visual, text[:0], 30, redundancy=0.7)
        wide = visual.cpu().double()
        expected, _ = reference.select(wide, wide[:0], 30, redundancy=0.7)
        assert torch.equal(indices.cpu(), expected) and (scores == 0).all()


def test_covered_rows_are_kept_and_the_best_of_the_others():
    for seed in range(CASES):
        problem = Problem(seed)
        coverage = (0.3, 0.5, 1.0)[seed % 3]
        indices, scores = problem.select(coverage=coverage)
        plain = problem.select()
        assert same_bits(scores, plain[1])
        for b, (visual, _, *masks) in enumerate(problem.items()):
            width = min(problem.k, len(visual))
            kept, own = indices.view(-1, width)[b].cpu(), scores.view(-1, len(visual))[b].cpu()
            finite = usable(visual, masks[0])[1].nonzero()[:, 0]
            if width >= len(finite):
                assert torch.equal(kept, plain[0].view(-1, width)[b].cpu()), f"case {seed}"
                continue
            count = reference.coverage_count(coverage, width, len(finite))
            ranking = own[finite]
            ranking[reference.coverage_positions(len(finite), count)] = math.inf
            expected = finite[reference.top_k(ranking, width)[1]]
            assert torch.equal(kept, expected), f"case {seed}"


def test_greedy_choices_after_covered_rows_agree():
    for dtype in DTYPES:
        for coverage in (0.2, 0.5, 1.0):
            visual, text = related(150, 6, 64, dtype)
            for words in (text, text[:0]):
                options = {"redundancy": 0.7, "coverage": coverage}
                indices, _ = ops.select(visual, words, 40, **options)
                wide = visual.cpu().double(), words.cpu().double()
                assert torch.equal(indices.cpu(), reference.select(*wide, 40, **options)[0])


def test_shapes_of_real_models_agree():
    shapes = [(576, 64, 1024, torch.bfloat16), (2880, 20, 256, torch.float16)]
    for n, m, d, dtype in [*shapes, (50_000, 128, 64, torch.float32)]:
        visual, text = related(n, m, d, dtype)
        indices, scores = ops.select(visual, text, n // 9)
        exact = reference.mutual_information(visual.cpu().double(), text.cpu().double())
        assert_scores_close(scores, exact)
        every = torch.ones(n, dtype=torch.bool)
        assert_largest_kept(indices.cpu(), exact, every, 0.1)


def test_normalize_agrees():
    for seed in range(CASES):
        torch.manual_seed(seed)
        choose = random.Random(seed)
        dtype = choose.choice(DTYPES)
        shape = (*choose.choice([(3,), (1,), ()]), choose.randrange(1, 40))
        x = torch.randn(*shape, choose.randrange(1, 600), dtype=torch.float64)
        x = (x * 10.0 ** choose.randrange(-5, 4)).to(DEVICE, dtype)
        x = laid_out(spoil(x, choose), choose)
        ours, exact = ops.normalize(x).cpu().double(), reference.normalize(x.cpu().double())
        torch.testing.assert_close(
            ours, exact, rtol=UNIT_TOLERANCE[dtype], atol=1e-7, equal_nan=True
        )


def test_top_k_agrees():
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -3e38])
    for n in (1, 31, 32, 1000, 4096, 30_000, 70_000, 300_000):
        crowded = torch.randint(0, 1024, (n,), dtype=torch.int32).add(0x3F800000)
        kinds = [torch.randn(n), special[torch.randint(7, (n,))], crowded.view(torch.float32)]
        scores = torch.stack([*kinds, torch.arange(n).float(), torch.zeros(n)])
        for k in {1, n // 2 + 1, n, n + 7}:
            values, indices = ops.top_k(scores.to(DEVICE), k)
            expected_values, expected_indices = reference.top_k(scores, k)
            assert torch.equal(indices.cpu(), expected_indices)
            assert torch.equal(values.cpu(), expected_values)  # -0.0 equals 0.0


def test_gather_rows_agrees():
    for seed in range(CASES):
        torch.manual_seed(seed)
        choose = random.Random(seed)
        batch = choose.choice([(), (2,)])
        n, width = choose.randrange(1, 30), choose.choice([1, 2, 3, 8, 17, 64, 333])
        dtype = choose.choice([*DTYPES, torch.int64, torch.uint8, torch.bool])
        rows = torch.randint(0, 2, (*batch, n, width + 3)).to(dtype)
        rows = rows[..., choose.randrange(3) :][..., :width]
        indices = torch.randint(-1, n, (*batch, choose.randrange(40)))
        picked = indices.clamp_min(0)[..., None].expand(*indices.shape, width)
        expected = rows.gather(-2, picked).masked_fill(indices[..., None] < 0, 0)
        result = ops.gather_rows(rows.to(DEVICE), indices.to(DEVICE))
        assert same_bits(result, expected) and result.is_contiguous()


# ---- what must change no bit ----


def test_a_batch_equals_its_items():
    for seed in range(CASES):
        problem = Problem(seed)
        if problem.visual.dim() == 2:
            continue
        for redundancy in (0.0, 0.7):
            chosen = {"redundancy": redundancy, "coverage": (0.0, 0.5)[seed % 2]}
            options = {**problem.options(), **chosen}
            together = problem.select(**chosen)
            for b in range(len(problem.visual)):
                masks = [None if mask is None else mask[b] for mask in problem.masks]
                alone = ops.select(problem.visual[b], problem.text[b], problem.k, *masks, **options)
                assert same([t[b] for t in together], alone), f"case {seed}"


def test_a_batch_that_fills_the_device_equals_its_items():
    """Alone, an item's sums are cut into parts for want of blocks; in such a batch they are not."""
    for dtype in DTYPES:
        torch.manual_seed(1)
        visual, text = related(160, 3, 1100, dtype, (90,))
        for words, redundancy in ((text, 0.0), (text, 0.7), (text[:, :0], 0.7)):
            together = ops.select(visual, words, 20, redundancy=redundancy)
            for b in (0, 44, 89):
                alone = ops.select(visual[b], words[b], 20, redundancy=redundancy)
                assert same([t[b] for t in together], alone), (dtype, redundancy, b)


def test_masked_and_broken_rows_leave_no_trace():
    for seed in range(CASES // 3):
        torch.manual_seed(seed)
        n, m, d = 1 + seed * 13 % 150, 1 + seed % 20, 1 + seed * 7 % 90
        visual, text = related(n, m, d, DTYPES[seed % 3])
        real = torch.randperm(2 * n)[:n].sort().values.to(DEVICE)
        padded = visual.new_full((2 * n, d), (0.0, math.nan, 7.0)[seed % 3])
        padded[real] = visual
        mask = torch.zeros(2 * n, dtype=torch.bool, device=DEVICE)
        mask[real] = True
        options = {"redundancy": (0.0, 0.7)[seed % 2], "estimator": ESTIMATORS[seed % 4]}
        options["coverage"] = (0.0, 0.5, 1.0)[seed % 3]
        indices, scores = ops.select(visual, text, max(1, n // 3), **options)
        padded_indices, padded_scores = ops.select(
            padded, text, max(1, n // 3), None if seed % 3 == 1 else mask, **options
        )
        assert same_bits(padded_scores[real], scores), f"case {seed}"
        assert (padded_scores[~mask] == -math.inf).all()
        assert torch.equal(padded_indices, real[indices]), f"case {seed}"


def test_layouts():
    visual, text = related(70, 9, 57, torch.bfloat16)
    expected = ops.select(visual, text, 20, redundancy=0.3)
    for seed in range(40):
        choose = random.Random(seed)
        views = laid_out(visual, choose), laid_out(text, choose)
        assert same(ops.select(*views, 20, redundancy=0.3), expected)
    shared = ops.select(visual.expand(3, 70, 57), text.expand(3, 9, 57), 20, redundancy=0.3)
    assert all(same([t[b] for t in shared], expected) for b in range(3))


def test_segments_equal_selections():
    for seed in range(CASES // 3):
        torch.manual_seed(seed)
        choose = random.Random(seed)
        sizes = [choose.randrange(0, 90) for _ in range(choose.randrange(1, 7))]
        words = choose.randrange(2, 80)
        visual, text = related(sum(sizes) + 3, words, 1 + seed * 7 % 99, DTYPES[seed % 3])
        borders = [2, *(2 + torch.tensor(sizes).cumsum(0)).tolist()]
        ranges = [sorted(choose.sample(range(words + 1), 2)) for _ in sizes]
        k = [choose.randrange(1, 60) for _ in sizes]
        options = {"redundancy": (0.0, 0.7)[seed % 2], "estimator": ESTIMATORS[seed % 4]}
        options["coverage"] = (0.0, 0.5, 1.0)[seed % 3]
        numbers = [torch.tensor(x, device=DEVICE) for x in (borders, ranges)]
        indices, scores = ops.select_varlen(visual, text, *numbers, k, **options)
        parts = indices.split(k)
        for s, (first, last) in enumerate(itertools.pairwise(borders)):
            begin, end = ranges[s]
            kept = parts[s][: min(k[s], last - first)]
            assert (parts[s][len(kept) :] == -1).all()
            if first == last:
                continue
            alone = ops.select(visual[first:last], text[begin:end], k[s], **options)
            assert same((kept - first, scores[first:last]), alone), f"case {seed}"
        assert (scores[[0, 1, -1]] == -math.inf).all()


# ---- edges ----


def test_ties_go_to_the_lower_index():
    for redundancy in (0.0, 0.7):
        visual, text = related(1, 5, 20)
        indices, _ = ops.select(visual.repeat(50, 1), text, 7, redundancy=redundancy)
        assert indices.tolist() == list(range(7))
        zeros = torch.zeros(60, 20, device=DEVICE)
        assert ops.select(zeros, text, 30, redundancy=redundancy)[0].tolist() == list(range(30))


def test_nothing_and_everything():
    for dtype in DTYPES:
        for redundancy in (0.0, 0.5):
            for batch, n in [((0,), 20), ((2,), 0), ((), 0), ((2,), 9), ((), 9)]:
                visual, text = related(n, 5, 12, dtype, batch)
                indices, scores = ops.select(visual, text, 9, redundancy=redundancy)
                width = min(n, 9)
                assert indices.shape == (*batch, width) and scores.shape == (*batch, n)
                assert (indices.cpu() == torch.arange(width)).all()
        assert ops.normalize(torch.empty(4, 0, dtype=dtype, device=DEVICE)).shape == (4, 0)
    assert ops.top_k(torch.empty(2, 0, device=DEVICE), 3)[1].shape == (2, 0)
    none = torch.empty(0, dtype=torch.int64, device=DEVICE)
    assert ops.gather_rows(torch.ones(3, 2, device=DEVICE), none).shape == (0, 2)


def test_bad_input_names_the_argument():
    visual, text = related(20, 5, 16)
    elsewhere = text.to("cpu" if ON_CUDA else "meta")
    kept = torch.tensor([0, 1], device=DEVICE)
    if ON_CUDA:
        message = message_of(RuntimeError, torch.ops.mipruner.select, visual, elsewhere, 4)
        assert "text: got a tensor on the CPU" in message
    for error, words, function, *arguments in [
        (ValueError, "text: got device", ops.select, visual, elsewhere, 4),
        (TypeError, "text: got torch.float16", ops.select, visual, text.half(), 4),
        (TypeError, "visual: got dtype torch.float64", ops.select, visual.double(), text, 4),
        (ValueError, "k: got 0", ops.select, visual, text, 0),
        (TypeError, "scores: got dtype", ops.top_k, visual.half(), 3),
        (TypeError, "indices: got dtype", ops.gather_rows, visual, kept.int()),
        (RuntimeError, "text: got float16", torch.ops.mipruner.select, visual, text.half(), 4),
        (RuntimeError, "visual: got dtype", torch.ops.mipruner.select, visual.long(), text, 4),
        (RuntimeError, "k: got 0", torch.ops.mipruner.top_k, visual, 0),
    ]:
        message = message_of(error, function, *arguments)
        assert words in message, message


if ON_CUDA:

    def change_in_place(arguments):
        """New numbers in the same memory, in as many rows as before."""
        for x in arguments:
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                x.copy_(torch.randn(x.shape).to(x))

    def sleep():
        """Keeps the current stream busy for a good tenth of a second."""
        torch.cuda._sleep(300_000_000)

    def captured(call):
        """(graph, its results), after the first call has loaded the kernels."""
        results_of(call)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = results_of(call)
        return graph, results

    def test_a_captured_graph_follows_its_inputs():
        for dtype in DTYPES:
            for call in calls(dtype):
                graph, results = captured(call)
                for _ in range(2):
                    change_in_place(call[1])
                    graph.replay()
                    replayed = [r.clone() for r in results]
                    assert same(replayed, results_of(call)), call[0]

    def test_work_goes_to_the_current_stream():
        """Inputs that arrive late on a second stream are seen, and nothing waits for them."""
        stream = torch.cuda.Stream()
        for call in calls():
            fresh = [x.clone() if isinstance(x, torch.Tensor) else x for x in call[1]]
            change_in_place(fresh)
            expected = results_of((call[0], fresh, call[2]))
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                sleep()
                for x, late in zip(call[1], fresh, strict=True):
                    if isinstance(x, torch.Tensor):
                        x.copy_(late)
                results = results_of(call)
            stream.synchronize()
            assert same(results, expected), call[0]

    def test_no_call_waits_for_the_device():
        prepared = calls()
        # The first call of a kernel loads it, and torch keeps the memory for the second.
        held = [results_of(call) for call in prepared]
        torch.cuda.synchronize()
        del held
        torch.cuda.set_sync_debug_mode("error")
        try:
            sleep()
            asleep = torch.cuda.Event()
            asleep.record()
            results = [results_of(call) for call in prepared]
            assert not asleep.query(), "a call came back only when the device had finished"
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        assert len(results) == len(prepared)

    def test_numbers_out_of_range_do_no_harm():
        """Looking at them would mean waiting for the device: they are clamped, or give zeros."""
        visual, text = related(20, 5, 16)
        far = torch.tensor([[-4, 2**40], [3, 1]], device=DEVICE)
        offsets = torch.tensor([-7, 6, 2**50], device=DEVICE)
        indices, _ = ops.select_varlen(visual, text, offsets, far, [3, 9], redundancy=0.5)
        assert ((indices >= -1) & (indices < 20)).all()
        wild = torch.tensor([0, 20, -2, 2**60], device=DEVICE)
        gathered = ops.gather_rows(visual, wild)
        assert same_bits(gathered[0], visual[0]) and (gathered[1:] == 0).all()

    def test_more_similarities_than_are_stored():
        """Rows of the table that do not fit its gibibyte are computed again when needed."""
        visual, text = related(20_000, 5, 16)
        indices, scores = ops.select(visual, text, 60, redundancy=0.5)
        on_host = ops.select(visual.cpu(), text.cpu(), 60, redundancy=0.5)
        assert_scores_close(scores, on_host[1])
        assert_well_formed(indices.cpu(), visual.cpu(), None, 60)
        # One close choice may lead to others.
        assert torch.isin(indices.cpu(), on_host[0]).sum() >= 54

    def test_offsets_past_two_to_the_31():
        stride = 716_000_000
        storage = torch.empty(3 * stride + 64, dtype=torch.float16, device=DEVICE)
        far = storage.as_strided((4, 64), (stride, 1))
        near, text = related(4, 3, 64, torch.float16)
        far.copy_(near)
        for redundancy in (0.0, 0.5):
            expected = ops.select(near, text, 2, redundancy=redundancy)
            assert same(ops.select(far, text, 2, redundancy=redundancy), expected)
        kept = torch.tensor([3, 0], device=DEVICE)
        assert same_bits(ops.gather_rows(far, kept), near[kept])

    if torch.cuda.device_count() > 1:

        def test_another_device_than_the_current_one():
            for call in calls():
                other = [x.to("cuda:1") if isinstance(x, torch.Tensor) else x for x in call[1]]
                keywords = {
                    k: x.to("cuda:1") if isinstance(x, torch.Tensor) else x
                    for k, x in call[2].items()
                }
                assert same(results_of((call[0], other, keywords)), results_of(call))
                assert torch.cuda.current_device() == 0
            visual, text = related(20, 5, 16)
            message = message_of(ValueError, ops.select, visual.to("cuda:1"), text, 4)
            assert "text: got device cuda:0" in message
