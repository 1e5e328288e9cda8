"""mutual_information: every estimator against the reference in float64, and what theory demands."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import (
    DTYPES,
    ESTIMATORS,
    LEVELS,
    assert_scores_close,
    at_level,
    mutual_information,
)

from mi_pruner_cuda import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
estimators = pytest.mark.parametrize("estimator", ESTIMATORS)


def exact(visual, text, visual_mask=None, text_mask=None, **options):
    return reference.mutual_information(
        visual.double(), text.double(), visual_mask, text_mask, **options
    )


@dtypes
@estimators
@pytest.mark.parametrize(
    "n, m, d",
    [(1, 1, 1), (2, 3, 5), (47, 2, 64), (49, 65, 257), (200, 16, 1024), (97, 300, 40), (50, 1, 9)],
)
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_agrees_with_the_reference(level, dtype, estimator, n, m, d, temperature):
    visual, text = related(n, m, d, dtype)
    options = {"temperature": temperature, "estimator": estimator}
    assert_scores_close(
        mutual_information(visual, text, **options), exact(visual, text, **options), temperature
    )


@estimators
@given(
    problem=problems(), level=st.sampled_from(LEVELS), temperature=st.sampled_from([0.03, 0.1, 2.0])
)
def test_any_input(estimator, problem, level, temperature):
    options = {"temperature": temperature, "estimator": estimator}
    with at_level(level):
        ours = mutual_information(*problem, **options)
    assert_scores_close(ours, exact(*problem, **options), temperature)


@given(problem=problems(masks=False, faults=st.just([])))
def test_specific_information_averages_to_the_mutual_information(problem):
    """mean_i I(v_i; T) = H(T) - H(T|V), computed here from the joint distribution."""
    visual, text, _, _ = problem
    if text.shape[0] == 1:
        return  # the pointwise score is used there; its mean is no entropy
    unit_visual, unit_text = (reference.normalize(x.double()) for x in (visual, text))
    conditional = torch.softmax(unit_visual @ unit_text.T / 0.1, 1)
    prior = conditional.mean(0)
    entropy = -(prior * prior.log()).sum()
    conditional_entropy = -(conditional * conditional.log()).sum(1).mean()
    scores = mutual_information(visual, text)
    assert (scores >= 0).all()
    assert scores.double().mean().item() == pytest.approx(
        (entropy - conditional_entropy).item(), rel=1e-4, abs=1e-6
    )


def test_a_constant_in_all_cosines_of_a_row_changes_nothing(level):
    """Two rows whose cosines differ by one constant: the softmax over words cannot tell them apart.

    All words share the last coordinate, and the two rows differ in the sign of theirs.
    """
    words = reference.normalize(torch.randn(9, 20, dtype=torch.float64))
    text = torch.cat([0.8 * words, torch.full((9, 1), 0.6, dtype=torch.float64)], 1).float()
    visual = torch.randn(30, 21)
    visual[1, :20] = visual[0, :20]
    visual[0, 20], visual[1, 20] = 0.9, -0.9
    scores = mutual_information(visual, text)
    assert scores[0].item() == pytest.approx(scores[1].item(), rel=1e-5)
    assert abs(scores[0] - scores[2]) > 1e-4  # other rows do differ


def test_one_word_scores_pointwise_and_ranks_like_the_cosine(level):
    visual, text = related(60, 1, 32)
    scores = mutual_information(visual, text)
    cosines = mutual_information(visual, text, estimator="cosine")
    assert torch.equal(scores.argsort(), cosines.argsort())
    # P(v_i|t) = exp(score) / N is a distribution.
    assert scores.exp().mean().item() == pytest.approx(1.0, rel=1e-5)


@estimators
def test_one_word_left_by_the_mask_is_one_word(level, estimator):
    visual, text = related(40, 6, 16)
    mask = torch.tensor([False, False, True, False, False, False])
    masked = mutual_information(visual, text, None, mask, estimator=estimator)
    assert torch.equal(masked, mutual_information(visual, text[2:3], estimator=estimator))


def test_no_word_left_scores_zero(level):
    visual, text = related(7, 3, 8)
    visual[2] = math.nan
    scores = mutual_information(visual, text, None, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(scores, torch.where(torch.arange(7) == 2, -math.inf, 0.0))


@estimators
def test_extreme_temperatures_stay_finite(level, estimator):
    visual, text = related(30, 5, 16)
    visual[3] = 0
    for temperature in (1e-20, 1e-6, 1e6, 1e30):
        options = {"temperature": temperature, "estimator": estimator}
        ours = mutual_information(visual, text, **options)
        assert torch.isfinite(ours).all(), temperature
        if temperature >= 1e-6:
            assert_scores_close(ours, exact(visual, text, **options), temperature)


def test_many_words_take_several_tiles(level):
    """More words than one packed tile holds (256 columns)."""
    visual, text = related(60, 700, 33)
    for estimator in ESTIMATORS:
        options = {"estimator": estimator}
        assert_scores_close(
            mutual_information(visual, text, **options), exact(visual, text, **options)
        )


def test_bfloat16_arithmetic_would_not_do():
    """The scale of the problem: why everything accumulates in float32 (temperature 1)."""
    visual, text = related(576, 12, 1024, torch.bfloat16)
    good = exact(visual, text, temperature=1.0)
    cosines = reference.normalize(visual) @ reference.normalize(text).T
    log_p = torch.log_softmax(cosines, 1)
    poor = (log_p.exp() * (log_p - log_p.exp().mean(0).log())).sum(1)
    ours = mutual_information(visual, text, temperature=1.0)

    def rank_correlation(a, b):
        ranks = torch.stack([a.argsort().argsort().double(), b.argsort().argsort().double()])
        return torch.corrcoef(ranks)[0, 1].item()

    assert rank_correlation(ours, good) > 0.999
    assert rank_correlation(poor.float(), good) < 0.9
