"""mi_pruner_cuda.select: what it adds to the operator."""

import inspect

import pytest
import torch
from inputs import related

import mi_pruner_cuda.numpy as mnp
from mi_pruner_cuda import (
    Mass,
    attach,
    defaults,
    distributed,
    engine,
    keep_count,
    ops,
    reference,
    select,
)

DEFAULTS = {"redundancy": defaults.REDUNDANCY, "coverage": defaults.COVERAGE}
PLAIN = {"redundancy": 0.0, "coverage": 0.0}


def test_ratio_and_count():
    visual, text = related(50, 6, 16)
    by_ratio, by_count = select(visual, text, 0.3), select(visual, text, 15)
    assert by_ratio.n_kept == 15 == keep_count(50, 0.3)
    assert torch.equal(by_ratio.indices, by_count.indices)
    expected, scores = reference.select(visual.double(), text.double(), 15, **DEFAULTS)
    assert torch.equal(by_ratio.indices, expected)
    torch.testing.assert_close(by_ratio.scores, scores.float(), rtol=1e-4, atol=1e-6)
    assert by_ratio.reason == "selected"


def test_counts_beyond_64_bits_keep_all():
    visual, text = related(5, 3, 8)
    assert ops.select(visual, text, 2**64)[0].tolist() == [0, 1, 2, 3, 4]


def test_more_than_all_is_said():
    visual, text = related(5, 3, 8)
    selection = select(visual, text, 9)
    assert selection.indices.tolist() == [0, 1, 2, 3, 4]
    assert selection.n_kept == 5
    assert selection.reason == "kept all: 9 of 5 asked for"


def test_mask_shrinks_what_a_ratio_counts():
    visual, text = related(40, 3, 8)
    mask = torch.arange(40) < 10
    selection = select(visual, text, 0.5, visual_mask=mask)
    assert selection.n_kept == 5 and (selection.indices < 10).all()
    assert select(visual, text, 30, visual_mask=mask).indices.tolist() == list(range(10))


def test_mass_keeps_the_share():
    visual, text = related(60, 6, 24)
    selection = select(visual, text, Mass(0.8))
    kept, total = selection.scores[selection.indices].sum(), selection.scores.sum()
    assert kept >= 0.8 * total
    weakest = selection.scores[selection.indices].min()
    assert kept - weakest < 0.8 * total
    assert "0.8 of the relevance" in selection.reason


@pytest.mark.parametrize("keep", [0.3, 7, Mass(0.7)])
def test_defaults(keep):
    """Those of the study, but with Mass, where only the best rows by relevance hold the share."""
    visual, text = related(60, 6, 24)
    options = PLAIN if isinstance(keep, Mass) else DEFAULTS
    expected = select(visual, text, keep, **options)
    assert torch.equal(select(visual, text, keep).indices, expected.indices)
    for name in options:
        other = 0.0 if options[name] else 1.0
        changed = select(visual, text, keep, **{name: other}).indices
        both = options | {name: other}
        assert torch.equal(changed, select(visual, text, keep, **both).indices)
        assert not torch.equal(changed, expected.indices)


def test_mass_needs_text():
    visual, text = related(20, 3, 8)
    for options in ({}, {"redundancy": 1.0}, {"always_keep": [1]}):
        with pytest.raises(ValueError, match="keep: got Mass without text rows"):
            select(visual, text[:0], Mass(0.5), **options)


def test_every_entrance_has_the_same_defaults():
    visual, text = related(60, 6, 24)
    expected = select(visual, text, 15).indices
    assert not torch.equal(expected, select(visual, text, 15, **PLAIN).indices)
    assert mnp.select(visual.numpy(), text.numpy(), 15).indices.tolist() == expected.tolist()
    for always_keep in (None, [None]):
        for given in ({}, {"redundancy": None, "coverage": None}):
            plan = engine.plan([visual], text, 0.25, always_keep=always_keep, **given)
            assert torch.equal(plan.kept[0], expected)
    for entrance in (select, attach, engine.plan, mnp.select, distributed.select):
        own = inspect.signature(entrance).parameters
        assert own["coverage"].default is None
        assert "redundancy" not in own or own["redundancy"].default is None
        assert own["temperature"].default == defaults.TEMPERATURE
        assert own["estimator"].default == defaults.ESTIMATOR


def test_batches():
    visual, text = related(30, 4, 12, batch=(3,))
    selection = select(visual, text, 0.2)
    assert selection.indices.shape == (3, 6) and selection.n_kept == [6, 6, 6]
    for b in range(3):
        assert torch.equal(selection.indices[b], select(visual[b], text[b], 0.2).indices)


def test_batches_with_masks_keep_each_its_share():
    visual, text = related(30, 4, 12, batch=(3,))
    mask = torch.arange(30) < torch.tensor([[30], [10], [2]])
    for keep, counts in ((0.2, [6, 2, 1]), (8, [8, 8, 2])):
        selection = select(visual, text, keep, visual_mask=mask)
        assert selection.n_kept == counts
        for b, count in enumerate(counts):
            own = select(visual[b], text[b], keep, visual_mask=mask[b])
            assert torch.equal(selection.indices[b, :count], own.indices)
            assert (selection.indices[b, count:] == -1).all()
            assert torch.equal(selection.scores[b], own.scores)


def test_text_free_and_single_word_are_said():
    visual, text = related(20, 3, 8)
    assert "no text" in select(visual, text[:0], 5).reason
    assert "pointwise" in select(visual, text[:1], 5).reason
    one = torch.tensor([False, True, False])
    assert "pointwise" in select(visual, text, 5, text_mask=one).reason


@pytest.mark.parametrize("redundancy", [0.0, 0.5])
def test_always_keep(redundancy):
    visual, text = related(40, 5, 16)
    options = {"redundancy": redundancy, "coverage": 0.0}
    worst = select(visual, text, 40).scores.argsort()[:3]
    selection = select(visual, text, 10, always_keep=worst, **options)
    assert selection.n_kept == 10 and torch.isin(worst, selection.indices).all()
    assert (selection.indices.diff() > 0).all()
    if redundancy == 0:
        others = selection.indices[~torch.isin(selection.indices, worst)]
        assert torch.equal(others, select(visual, text, 7, **options).indices)
    exact = select(visual, text, 3, always_keep=worst, **options)
    assert torch.equal(exact.indices, worst.sort().values)


@pytest.mark.parametrize(
    "always_keep, message",
    [
        ([40], "allowed are indices in"),
        ([-1], "allowed are indices in"),
        (range(11), "at most keep"),
    ],
)
def test_always_keep_out_of_range(always_keep, message):
    visual, text = related(40, 5, 16)
    with pytest.raises(ValueError, match=message):
        select(visual, text, 10, always_keep=list(always_keep))


@pytest.mark.parametrize("always_keep", [[False, True], [1.7], torch.tensor([True, False])])
def test_always_keep_of_a_wrong_type(always_keep):
    visual, text = related(40, 5, 16)
    with pytest.raises(TypeError, match="allowed are integer indices"):
        select(visual, text, 10, always_keep=always_keep)
    assert select(visual, text, 10, always_keep=[]).n_kept == 10


def test_a_text_mask_that_leaves_nothing_needs_redundancy():
    visual, text = related(20, 3, 8, batch=(2,))
    mask = torch.tensor([[True, False, True], [False, False, False]])
    with pytest.raises(ValueError, match="redundancy: got 0 with a text_mask"):
        select(visual, text, 5, text_mask=mask, redundancy=0)
    with pytest.raises(ValueError, match="redundancy: got 0 with a text_mask"):
        mnp.select(visual.numpy(), text.numpy(), 5, text_mask=mask.numpy(), redundancy=0)
    assert select(visual, text, 5, text_mask=mask).n_kept == [5, 5]


@pytest.mark.parametrize("keep", [0.5, 3, Mass(0.5)])
def test_no_rows(keep):
    selection = select(torch.empty(0, 8), torch.randn(2, 8), keep)
    assert selection.n_kept == 0 and selection.reason == "there are no rows to keep"


@pytest.mark.parametrize("keep", [0.5, 3])
@pytest.mark.parametrize(
    "text_batch, mask_shape", [(2, (3, 8)), (3, (2, 8)), (4, (3, 8)), (3, (8,))]
)
def test_batches_that_do_not_match(keep, text_batch, mask_shape):
    mask = torch.ones(mask_shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"(text|visual_mask): got shape"):
        select(torch.randn(3, 8, 4), torch.randn(text_batch, 2, 4), keep, visual_mask=mask)


def test_always_keep_of_a_masked_row():
    visual, text = related(40, 5, 16)
    mask = torch.arange(40) != 7
    with pytest.raises(ValueError, match="masks out"):
        select(visual, text, 10, visual_mask=mask, always_keep=[7])


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"keep": 0}, ValueError, "keep: got 0"),
        ({"keep": 1.5}, ValueError, "keep: got 1.5"),
        ({"keep": "all"}, TypeError, "keep: got 'all'"),
        ({"temperature": 0.0}, ValueError, "temperature: got 0.0"),
        ({"redundancy": -1.0}, ValueError, "redundancy: got -1.0"),
        ({"redundancy": -1.0, "always_keep": [0]}, ValueError, "redundancy: got -1.0"),
        ({"estimator": "entropy"}, ValueError, "estimator: got 'entropy'"),
        ({"visual_mask": torch.ones(3, dtype=torch.bool)}, ValueError, "visual_mask: got shape"),
        ({"text": torch.zeros(0, 8), "redundancy": 0}, ValueError, "redundancy: got 0"),
        (
            {"text": torch.zeros(0, 8), "always_keep": [0], "redundancy": 0},
            ValueError,
            "redundancy: got 0",
        ),
        ({"text": torch.zeros(2, 9)}, ValueError, "text: got row width 9"),
        ({"text": torch.zeros(2, 8).double()}, TypeError, "text: got dtype torch.float64"),
        ({"visual": torch.zeros(8)}, ValueError, "visual: got 1 dimension"),
        ({"visual": [[0.0] * 8]}, TypeError, "visual: got list"),
        ({"visual": torch.tensor(1.0)}, ValueError, "visual: got 0 dimension"),
        ({"visual_mask": [True] * 5}, TypeError, "visual_mask: got list"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"visual": torch.randn(5, 8), "text": torch.randn(2, 8), "keep": 2} | change
    with pytest.raises(error, match=message):
        select(**arguments)


def test_mass_and_always_keep_need_one_item():
    visual, text = related(30, 4, 12, batch=(3,))
    with pytest.raises(ValueError, match="keep: got Mass for a batch"):
        select(visual, text, Mass(0.5))
    with pytest.raises(ValueError, match="always_keep: got a batch"):
        select(visual, text, 4, always_keep=[0])
