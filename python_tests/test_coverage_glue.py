"""coverage where Python passes it on: select, attach, engine, the command line.

What it means is tested on the operators, in test_coverage.py; across ranks in test_distributed.py.
"""

import math

import pytest
import torch
from inputs import related
from tiny_models import SQUARE, Prompt, inputs_for, llava

from mi_pruner_cuda import Mass, attach, engine, ops, reference, select
from mi_pruner_cuda.commands import main

torch.set_num_threads(1)


@pytest.mark.parametrize("redundancy", [0.0, 0.7])
def test_select_passes_it_to_the_operator(redundancy):
    visual, text = related(100, 6, 16)
    mask, words = torch.arange(100) % 4 != 1, torch.arange(6) != 2
    options = {"redundancy": redundancy, "coverage": 0.5}
    got = select(visual, text, 20, visual_mask=mask, text_mask=words, **options)
    expected, scores = ops.select(visual, text, 20, mask, words, **options)
    assert torch.equal(got.indices, expected) and torch.equal(got.scores, scores)
    options["coverage"] = 0.0
    assert not torch.equal(got.indices, ops.select(visual, text, 20, mask, words, **options)[0])


@pytest.mark.parametrize("redundancy", [0.0, 0.7])
def test_rows_that_stay_anyway_are_not_covered_twice(redundancy):
    visual, text = related(100, 6, 16)
    fixed = [0, 50, 51]
    got = select(visual, text, 23, always_keep=fixed, coverage=0.5, redundancy=redundancy)
    others = [i for i in range(100) if i not in fixed]
    spread = {others[p] for p in reference.coverage_positions(97, 10)}
    assert got.n_kept == 23 and set(fixed) | spread <= set(got.indices.tolist())
    if redundancy == 0:
        ranked = got.scores.argsort(descending=True).tolist()
        rest = [i for i in ranked if i not in spread and i not in fixed]
        assert set(got.indices.tolist()) == set(fixed) | spread | set(rest[:10])


def test_rows_that_are_not_finite_are_not_covered_around_others():
    visual, text = related(40, 6, 16)
    visual[3::2] = math.nan
    finite = visual.isfinite().all(1).nonzero()[:, 0]
    for redundancy in (0.0, 1.0):
        got = select(visual, text, 10, always_keep=[], coverage=1.0, redundancy=redundancy)
        assert torch.equal(got.indices, finite[reference.coverage_positions(len(finite), 10)])


def test_batches_and_masses():
    visual, text = related(60, 6, 16)
    both = select(torch.stack([visual, visual.flip(0)]), text.expand(2, -1, -1), 0.3, coverage=0.5)
    for b, rows in enumerate((visual, visual.flip(0))):
        assert torch.equal(both.indices[b], select(rows, text, 0.3, coverage=0.5).indices)
    mask = torch.ones(2, 60, dtype=torch.bool)
    mask[1, 40:] = False
    ragged = select(
        torch.stack([visual, visual]), text.expand(2, -1, -1), 0.3, visual_mask=mask, coverage=0.5
    )
    assert torch.equal(ragged.indices[1, :12], select(visual[:40], text, 12, coverage=0.5).indices)
    mass = select(visual, text, Mass(0.5), coverage=0.5)
    assert torch.equal(
        mass.indices, select(visual, text, mass.n_kept, redundancy=0, coverage=0.5).indices
    )


def test_plan():
    images = [related(n, 5, 16, seed=n)[0] for n in (20, 30)]
    text = related(20, 5, 16)[1]
    for stays in (None, [None, None], [[0], None]):
        got = engine.plan(images, text, 0.25, coverage=0.5, always_keep=stays)
        for image, kept, own in zip(images, got.kept, stays or [None, None], strict=True):
            expected = select(image, text, 0.25, coverage=0.5, always_keep=own)
            assert torch.equal(kept, expected.indices)


def test_attach():
    model = llava()
    with attach(model, keep=4, coverage=1.0) as pruner:
        model(**inputs_for(model, [Prompt([9, SQUARE, 10, 11])]))
        (entry,) = pruner.report
    expected = reference.coverage_positions(entry.tokens_before, 4)
    assert entry.indices.tolist() == expected
    with pytest.raises(ValueError, match=r"coverage: got -1, allowed is \[0, 1\]"):
        attach(model, keep=4, coverage=-1)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "half", True])
@pytest.mark.parametrize("options", [{}, {"always_keep": [0]}, {"always_keep": [0, 1, 2, 3, 4]}])
def test_what_is_no_share_is_refused(value, options):
    visual, text = related(20, 5, 16)
    with pytest.raises((TypeError, ValueError), match=r"coverage: got .*, allowed is \[0, 1\]"):
        select(visual, text, 5, coverage=value, **options)


def test_the_command_line_refuses_it_too(capsys):
    argv = ["prune", "--model", "m", "--image", "i", "--question", "q", "--coverage", "2"]
    assert main(argv) == 2
    assert "--coverage" in capsys.readouterr().err
