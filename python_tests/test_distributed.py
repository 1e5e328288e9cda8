"""distributed.select on groups of 2, 3 and 4 gloo processes, against one process with all rows.

One group of each size runs all cases of distributed_worker.py; the tests look at what it saved.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_worker import Case, cases, errors
from inputs import related
from kernels import assert_top, resolution, same_bits

import mi_pruner_cuda
from mi_pruner_cuda import Mass, defaults, distributed, reference

WORLDS = (2, 3, 4)
CASES = list(cases(2))
HEADER = 16  # a header has fewer numbers


@pytest.fixture(scope="module", params=WORLDS)
def group(request, tmp_path_factory):
    """What each rank of a group saved, one dict a rank."""
    folder = tmp_path_factory.mktemp(f"group_of_{request.param}")
    worker = Path(__file__).with_name("distributed_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, worker, str(rank), str(request.param), folder],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(request.param)
    ]
    try:
        said = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * request.param, "\n".join(said)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(request.param)]


def exact_scores(case: Case) -> torch.Tensor:
    options = {name: value for name, value in case.options.items() if name != "coverage"}
    return reference.mutual_information(
        case.visual.double(), case.text.double(), case.mask, **options
    )


def ranking_of(case: Case, scores: torch.Tensor, k: int) -> torch.Tensor:
    """With what coverage keeps ahead of all others."""
    finite = (scores > -math.inf).nonzero()[:, 0]
    _, coverage = defaults.choice(case.keep, 0.0, case.options["coverage"])
    count = reference.coverage_count(coverage, k, len(finite))
    scores = scores.clone()
    scores[finite[reference.coverage_positions(len(finite), count)]] = math.inf
    return scores


def assert_close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    """1e-5 of each score by itself, where float32 has the digits; -inf where exact is."""
    finite = exact.isfinite()
    assert torch.equal(ours.isfinite(), finite)
    assert (ours[~finite] == -math.inf).all()
    torch.testing.assert_close(ours[finite].double(), exact[finite], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_equals_one_process_with_all_rows(group, name):
    case = cases(len(group))[name]
    got = group[0]["first"][name]
    exact = exact_scores(case)
    assert_close(got["all_scores"], exact)
    one = mi_pruner_cuda.select(
        case.visual, case.text, case.keep, redundancy=0, visual_mask=case.mask, **case.options
    )
    temperature = case.options.get("temperature", 0.1)
    finite = exact.isfinite()
    # The single process computes in float32.
    slack = 1e-5 * exact[finite].abs().max() if finite.any() else 0.0
    slack = max(slack, resolution(temperature)) * max(1.0, 0.05 / temperature)
    known, other = got["all_scores"][finite], one.scores[finite]
    assert known.shape == other.shape and (known - other).abs().le(slack).all()
    assert (got["n_kept"], got["reason"]) == (one.n_kept, one.reason)
    assert got["indices"].dtype == torch.int64 and len(got["indices"]) == one.n_kept
    if not torch.equal(got["indices"], one.indices):
        clear = set(got["indices"].tolist()) ^ set(one.indices.tolist())
        swapped = exact[sorted(clear)]
        assert swapped.max() - swapped.min() <= 2 * slack
    candidates = torch.ones(len(exact), dtype=torch.bool) if case.mask is None else case.mask
    own = torch.searchsorted(candidates.nonzero()[:, 0], got["indices"])
    assert candidates[got["indices"]].all()
    if finite[candidates].all() and len(own):
        assert_top(own, ranking_of(case, exact[candidates], len(own)), len(own))


@pytest.mark.parametrize("name", CASES)
def test_ties_and_order_are_those_of_its_own_scores(group, name):
    """The kept rows are exactly the top of all_scores, the lower row first."""
    case = cases(len(group))[name]
    got = group[0]["first"][name]
    candidates = torch.arange(len(case.visual))
    if case.mask is not None:
        candidates = candidates[case.mask]
    scores = ranking_of(case, got["all_scores"][candidates], max(1, got["n_kept"]))
    expected = candidates[reference.top_k(scores, max(1, got["n_kept"]))[1]]
    assert torch.equal(got["indices"], expected)


@pytest.mark.parametrize("name", CASES)
def test_every_rank_and_every_run_gets_the_same_bits(group, name):
    sizes = cases(len(group))[name].sizes
    for rank, saved in enumerate(group):
        for run in ("first", "again"):
            got, expected = saved[run][name], group[0]["first"][name]
            for shared in ("indices", "all_scores"):
                assert same_bits(got[shared], expected[shared])
            for shared in ("n_kept", "reason"):
                assert got[shared] == expected[shared]
            # And each its own part.
            begin = sum(sizes[:rank])
            end = begin + sizes[rank]
            assert got["offset"] == begin
            assert same_bits(got["scores"], got["all_scores"][begin:end])
            own = [int(i) - begin for i in got["indices"] if begin <= i < end]
            assert got["local_indices"].tolist() == own


@pytest.mark.parametrize("estimator", ["specific", "posterior", "joint", "cosine"])
def test_equal_rows_on_two_ranks_score_the_same_and_the_lower_is_kept(group, estimator):
    got = group[0]["first"][f"{estimator} twins across the border"]
    low, high = got["all_scores"][:25], got["all_scores"][25:]
    assert same_bits(low, high)
    kept = set(got["indices"].tolist())
    assert all(i - 25 in kept for i in kept if i >= 25)
    # 9 is odd: one pair is parted.
    assert sum(i + 25 not in kept for i in kept if i < 25) == 1


@pytest.mark.parametrize("name", CASES)
def test_traffic_is_one_number_a_row_and_a_word(group, name):
    case = cases(len(group))[name]
    for saved in group:
        sent = saved["first"][name]["sent"]
        assert set(sent) == {"all_gather"}
        assert HEADER // 2 < sent["all_gather"] <= len(case.visual) + len(case.text) + HEADER
        # Padding goes to the longest shard and no further.
        assert sent["all_gather"] <= max(case.sizes) + len(case.text) + HEADER


def test_traffic_does_not_depend_on_the_row_width(group):
    for saved in group:
        assert saved["first"]["width 8"]["sent"] == saved["first"]["width 512"]["sent"]


@pytest.mark.parametrize("name", list(errors(2)))
def test_every_rank_raises_the_same_error(group, name):
    _, kind, words = errors(len(group))[name]
    raised = [saved["errors"][name] for saved in group]
    assert len(set(raised)) == 1, raised
    assert raised[0][0] == kind.__name__, raised
    assert all(word in raised[0][1] for word in words), raised
    if name == "wrong everywhere":
        assert "rank" not in raised[0][1]


def test_a_group_of_some_of_the_ranks(group):
    visual, text = related(20, 4, 8)
    expected = mi_pruner_cuda.select(visual, text, 5, redundancy=0, coverage=0)
    for rank, saved in enumerate(group):
        if rank < len(group) - 2:
            assert "group" in saved["subgroup"] and "no member" in saved["subgroup"]
        else:
            assert torch.equal(saved["subgroup"]["indices"], expected.indices)
            assert saved["subgroup"]["offset"] == (0 if rank == len(group) - 2 else 13)


def test_needs_an_initialised_group():
    with pytest.raises(ValueError, match=r"^group: got no initialised"):
        distributed.select(torch.eye(3), torch.eye(3), 1)


@pytest.fixture
def alone(tmp_path):
    """This process as a group of one."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_autocast_and_gradients_change_nothing(alone):
    visual, text = related(40, 5, 64)
    expected = distributed.select(visual, text, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = distributed.select(visual.requires_grad_(), text.requires_grad_(), 9)
    assert same_bits(got.all_scores, expected.all_scores) and not got.scores.requires_grad
    assert torch.equal(got.indices, expected.indices)
    assert torch.equal(got.local_indices, got.indices) and got.offset == 0


def test_any_other_failure_is_an_error_too(alone, monkeypatch):
    """Whatever goes wrong on a rank, it sends its header first."""
    monkeypatch.setattr(distributed.agreement, "_checksum", lambda x: 1 / 0)
    with pytest.raises(RuntimeError, match="division by zero"):
        distributed.select(torch.eye(3), torch.eye(3), 1)


def test_mass_keeps_the_rows_that_hold_the_share(group):
    for name in (n for n in CASES if " mass " in n):
        case = cases(len(group))[name]
        gains = exact_scores(case).clamp_min(0)
        got = group[0]["first"][name]
        assert isinstance(case.keep, Mass) and 1 < got["n_kept"] < 61
        assert gains[got["indices"]].sum() >= (case.keep.share - 1e-4) * gains.sum()
