"""The reference itself, against numbers worked out by hand and against plain loops."""

import math

import pytest
import torch

from mi_pruner_cuda import reference


def loops(visual, text, temperature, estimator):
    """The equations, one probability at a time, in plain Python floats."""
    cosines = [
        [
            sum(a * b for a, b in zip(v, t, strict=True))
            / math.sqrt(sum(a * a for a in v) * sum(b * b for b in t))
            for t in text
        ]
        for v in visual
    ]
    n, m = len(visual), len(text)
    e = [[math.exp(s / temperature) for s in row] for row in cosines]
    if estimator == "specific":
        p = [[x / sum(row) for x in row] for row in e]
        prior = [sum(p[i][j] for i in range(n)) / n for j in range(m)]
        return [sum(p[i][j] * math.log(p[i][j] / prior[j]) for j in range(m)) for i in range(n)]
    if estimator == "posterior":
        total = [sum(e[i][j] for i in range(n)) for j in range(m)]
        p = [[e[i][j] / total[j] for j in range(m)] for i in range(n)]
        return [sum(p[i][j] * math.log(n * p[i][j]) for j in range(m)) / m for i in range(n)]
    if estimator == "joint":
        total = sum(map(sum, e))
        p = [[x / total for x in row] for row in e]
        rows = [sum(row) for row in p]
        columns = [sum(p[i][j] for i in range(n)) for j in range(m)]
        return [
            sum(p[i][j] * math.log(p[i][j] / (rows[i] * columns[j])) for j in range(m))
            for i in range(n)
        ]
    return [max(row) for row in cosines]


@pytest.mark.parametrize("estimator", reference.ESTIMATORS)
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_the_equations(estimator, temperature):
    visual = torch.randn(7, 5, dtype=torch.float64)
    text = torch.randn(4, 5, dtype=torch.float64)
    scores = reference.mutual_information(
        visual, text, temperature=temperature, estimator=estimator
    )
    assert scores.tolist() == pytest.approx(
        loops(visual.tolist(), text.tolist(), temperature, estimator), rel=1e-9
    )


def test_two_rows_that_each_name_one_word():
    """At a small temperature each row speaks of its word alone: one bit of information each."""
    eye = torch.eye(2, dtype=torch.float64)
    scores = reference.mutual_information(eye, eye, temperature=0.01)
    assert scores.tolist() == pytest.approx([math.log(2)] * 2)


def test_redundancy_of_two_pairs():
    """Rows 0 and 1 agree, rows 2 and 3 agree: each tells log 4 nats of its partner alone."""
    rows = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    table = reference.redundancy_table(rows, temperature=0.01)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = math.log(4)
    torch.testing.assert_close(table, expected)


def test_greedy_order_by_hand():
    """With the pairs above, the partner of the first choice is worth only 2.9 - log 4."""
    rows = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    relevance = torch.tensor([3.0, 2.9, 1.6, 0.5], dtype=torch.float64)
    assert reference.greedy(rows, relevance, 4, 0.0) == [0, 1, 2, 3]
    assert reference.greedy(rows, relevance, 4, 1.0, temperature=0.01) == [0, 2, 1, 3]


def test_greedy_order_with_coverage_by_hand():
    """Of two rows one is covered, the middle of the list, whose partner then adds nothing."""
    rows = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    relevance = torch.tensor([1.0, 0.9, 0.5, 1.6], dtype=torch.float64)
    options = {"redundancy": 1.0, "temperature": 0.01}
    assert reference.greedy(rows, relevance, 2, **options) == [3, 0]
    assert reference.greedy(rows, relevance, 2, **options, coverage=0.5) == [2, 0]
    # With nothing left to decide, coverage changes nothing.
    assert reference.greedy(rows, relevance, 4, **options, coverage=1.0) == [3, 0, 1, 2]


def test_select_with_coverage_by_hand():
    rows, words = torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)[:2]
    mask = torch.tensor([True, True, True, True, False, True])
    # Rows 0 and 1 name a word each. Of the five that count, position 2 is covered.
    assert reference.select(rows, words, 2, mask)[0].tolist() == [0, 1]
    assert reference.select(rows, words, 2, mask, coverage=0.5)[0].tolist() == [0, 2]
    assert reference.select(rows, words, 3, mask, coverage=0.4)[0].tolist() == [0, 1, 2]


def test_normalize_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e30, 4e30], [math.nan, 1.0]])
    expected = torch.tensor([[0.6, 0.8], [0, 0], [0.6, 0.8], [math.nan, math.nan]])
    torch.testing.assert_close(reference.normalize(x), expected, equal_nan=True)
    assert reference.normalize(x.half()[:2]).dtype == torch.float16


def test_top_k_by_hand():
    scores = torch.tensor([1.0, math.nan, 3.0, 1.0, -math.inf, 3.0])
    values, indices = reference.top_k(scores, 3)
    assert indices.tolist() == [0, 2, 5] and values.tolist() == [1.0, 3.0, 3.0]
    assert reference.top_k(scores, 9)[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_masked_rows_are_removed_first():
    visual, text = torch.randn(6, 4), torch.randn(3, 4)
    keep = torch.tensor([True, False, True, True, False, True])
    scores = reference.mutual_information(visual, text, visual_mask=keep)
    assert torch.equal(scores[keep], reference.mutual_information(visual[keep], text))
    assert (scores[~keep] == -math.inf).all()


def test_unknown_estimator():
    with pytest.raises(ValueError, match="estimator: got 'entropy', allowed are specific"):
        reference.mutual_information(torch.randn(3, 4), torch.randn(2, 4), estimator="entropy")
