"""The critic where it is applied: apply_critic, select, plan, distributed.select, its file."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import ESTIMATORS
from safetensors.torch import save_file

import mi_pruner_cuda
from mi_pruner_cuda import Critic, Mass, distributed, engine, reference, select
from mi_pruner_cuda.critic import FILE_NAME, apply_critic, fingerprint

torch.set_num_threads(1)


def matrix(d, seed=1, scale=1.0):
    return scale * torch.randn(d, d, generator=torch.Generator().manual_seed(seed))


# ---- the map ----


@given(problem=problems(masks=False), scale=st.sampled_from([1e-3, 1.0, 1e6]))
def test_it_is_the_formula(problem, scale):
    _, text, _, _ = problem
    critic = matrix(text.shape[1], scale=scale)
    got = apply_critic(critic, text)
    assert got.dtype == text.dtype and got.shape == text.shape
    exact = reference.apply_critic(critic.double(), text.double())
    finite = text.isfinite().all(1)
    assert got[~finite].isnan().all()
    assert torch.equal(got.isfinite().all(1), finite)
    assert (got[(text == 0).all(1)] == 0).all()
    tolerance = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}[text.dtype]
    apart = (got[finite].double() - exact[finite]).norm(dim=1)  # of unit rows
    assert (apart < tolerance).all()


def test_it_maps_text_to_the_transposed_matrix():
    critic = torch.tensor([[0.0, 2.0], [0.0, 0.0]])  # A: the text's axis 0 against visual axis 1
    assert apply_critic(critic, torch.tensor([[5.0, 0.0]])).tolist() == [[0.0, 1.0]]
    picked = select(torch.eye(2), torch.tensor([[1.0, 0.0]]), 1, critic=critic)
    assert picked.indices.tolist() == [1]


@pytest.mark.parametrize("d", [7, 64, 300])
def test_a_row_has_the_same_bits_alone_and_among_others(d):
    text = torch.randn(3, 9, d)
    critic = Critic(matrix(d))
    whole = critic.apply(text)
    for b in range(3):
        assert torch.equal(critic.apply(text[b]), whole[b])
        for j in range(9):
            assert torch.equal(critic.apply(text[b, j : j + 1]), whole[b, j : j + 1])
    assert critic.apply(text[0, :0]).shape == (0, d)


def test_autocast_and_gradients_change_nothing():
    critic, text = Critic(matrix(16)), torch.randn(4, 16)
    expected = critic.apply(text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(critic.apply(text), expected)
    assert not critic.apply(text.requires_grad_()).requires_grad


# ---- select ----


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("redundancy", [0.0, 0.7])
def test_select_equals_the_reference(estimator, redundancy):
    visual, text = related(60, 6, 24)
    critic = matrix(24)
    options = {"redundancy": redundancy, "coverage": 0.25, "estimator": estimator}
    got = select(visual, text, 15, critic=critic, **options)
    words = reference.apply_critic(critic.double(), text.double())
    indices, scores = reference.select(visual.double(), words, 15, **options)
    assert torch.equal(got.indices, indices)
    torch.testing.assert_close(got.scores, scores.float(), rtol=1e-4, atol=1e-5)
    assert got.reason == "selected; compared by a critic"
    plain = select(visual, text, 15, **options)
    assert not torch.equal(got.indices, plain.indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_identity_is_no_critic(dtype):
    visual, text = related(50, 5, 16, dtype)
    plain, same = (select(visual, text, 12, critic=c) for c in (None, torch.eye(16)))
    tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(same.scores, plain.scores, rtol=0, atol=tolerance)
    if dtype == torch.float32:
        assert torch.equal(same.indices, plain.indices)


def test_half_types_hold_any_scale():
    visual, text = related(50, 5, 16, torch.float16)
    expected = select(visual, text, 12, critic=matrix(16))
    for scale in (1e-9, 1e9):
        got = select(visual, text, 12, critic=matrix(16, scale=scale))
        assert torch.equal(got.indices, expected.indices)


@pytest.mark.parametrize("keep", [0.3, 7, Mass(0.7)])
def test_batches_masks_and_budgets(keep):
    visual, text = related(40, 6, 24, batch=(3,))
    critic = Critic(matrix(24))
    rows = torch.arange(40) < torch.tensor([[40], [25], [9]])
    words = torch.arange(6) < torch.tensor([[6], [1], [3]])
    items = [
        select(visual[b], text[b], keep, visual_mask=rows[b], text_mask=words[b], critic=critic)
        for b in range(3)
    ]
    for b, item in enumerate(items):
        bare = select(visual[b, rows[b]], text[b, words[b]], keep, critic=critic)
        assert torch.equal(bare.indices, item.indices)
        assert torch.equal(bare.scores, item.scores[rows[b]])
    if isinstance(keep, Mass):
        return
    batch = select(visual, text, keep, visual_mask=rows, text_mask=words, critic=critic)
    assert batch.reason.endswith("compared by a critic")
    for b, item in enumerate(items):
        assert torch.equal(batch.indices[b, : item.n_kept], item.indices)
        assert torch.equal(batch.scores[b], item.scores)


def test_a_spoilt_word_counts_as_masked():
    visual, text = related(40, 4, 16)
    critic = Critic(matrix(16))
    text[2, 3] = math.nan
    words = torch.tensor([True, True, False, True])
    spoilt, masked = (
        select(visual, text, 9, text_mask=m, critic=critic).scores for m in (None, words)
    )
    assert torch.equal(spoilt, masked) and spoilt.isfinite().all()


def test_always_keep_and_text_free():
    visual, text = related(40, 4, 16)
    critic = Critic(matrix(16))
    got = select(visual, text, 8, always_keep=[3, 5], redundancy=0.5, critic=critic)
    assert got.n_kept == 8 and {3, 5} <= set(got.indices.tolist())
    free = select(visual, text[:0], 8, redundancy=1.0, critic=critic)
    assert torch.equal(free.indices, select(visual, text[:0], 8, redundancy=1.0).indices)


@pytest.mark.parametrize(
    "critic, error, message",
    [
        (matrix(8).double(), TypeError, "critic: got dtype torch.float64"),
        (matrix(8)[:5], ValueError, r"critic: got shape \(5, 8\)"),
        (matrix(9), ValueError, "critic: got width 9, allowed is that of the rows, 8"),
        (Critic(matrix(9)), ValueError, "critic: got width 9"),
        (torch.full((8, 8), math.nan), ValueError, "critic: got NaN, Inf"),
        (matrix(8).numpy(), TypeError, "critic: got ndarray"),
        (torch.empty(8, 8, device="meta"), ValueError, "critic: got device meta"),
    ],
)
def test_wrong_critics(critic, error, message):
    visual, text = related(10, 3, 8)
    with pytest.raises(error, match=message):
        select(visual, text, 2, critic=critic)


@pytest.mark.parametrize("bare", [True, False], ids=["matrix", "Critic"])
def test_compiled_and_exported(bare):
    critic = matrix(16) if bare else Critic(matrix(16))

    def prune(visual, text):
        selection = select(visual, text, 6, critic=critic)
        return selection.indices, selection.scores

    torch._dynamo.reset()
    compiled = torch.compile(prune, fullgraph=True, dynamic=True, backend="aot_eager")
    for m in (3, 1, 5):
        visual, text = related(30, m, 16, seed=m)
        got, expected = compiled(visual, text), prune(visual, text)
        assert torch.equal(got[0], expected[0])
        torch.testing.assert_close(got[1], expected[1], rtol=0, atol=1e-6)

    class Module(torch.nn.Module):
        def forward(self, visual, text):
            return prune(visual, text)

    visual, text = related(30, 4, 16)
    words = torch.export.Dim("words", min=2, max=64)
    program = torch.export.export(
        Module(), (visual, text), dynamic_shapes=({}, {0: words}), strict=False
    )
    visual, text = related(30, 7, 16)
    assert torch.equal(program.module()(visual, text)[0], prune(visual, text)[0])


# ---- engine and process groups ----


def test_plan():
    images = [related(n, 5, 16, seed=n)[0] for n in (20, 30)]
    text = related(20, 5, 16)[1]
    critic = Critic(matrix(16))
    got = engine.plan(images, text, 0.25, critic=critic)
    for image, kept in zip(images, got.kept, strict=True):
        assert torch.equal(kept, select(image, text, 0.25, critic=critic).indices)
    around = engine.plan(images, text, 0.25, critic=critic, always_keep=[[0], None])
    assert around.kept[0][0] == 0 and torch.equal(around.kept[1], got.kept[1])
    with pytest.raises(ValueError, match="critic: got one without text"):
        engine.plan(images, None, 0.25, redundancy=1.0, critic=critic)


@pytest.fixture
def lone_group():
    group = torch.distributed
    group.init_process_group("gloo", store=group.HashStore(), rank=0, world_size=1)
    yield
    group.destroy_process_group()


def test_distributed_select(lone_group):
    visual, text = related(40, 5, 16)
    critic = Critic(matrix(16))
    got = distributed.select(visual, text, 9, critic=critic)
    one = select(visual, text, 9, critic=critic, redundancy=0)
    assert torch.equal(got.indices, one.indices) and got.reason == one.reason
    torch.testing.assert_close(got.scores, one.scores, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="critic: got width 9"):
        distributed.select(visual, text, 9, critic=matrix(9))


def test_ranks_with_other_critics_would_see_it():
    from mi_pruner_cuda.distributed.agreement import Header, _check_equal

    hashes = [fingerprint(c) for c in (None, matrix(4), Critic(matrix(4)), matrix(4, seed=2))]
    assert hashes[0] == 0 and hashes[1] == hashes[2] and len(set(hashes)) == 3
    with pytest.raises(ValueError, match=r"critic: hash of the bits got 0{16} on rank 0"):
        _check_equal([Header(0, critic=hashes[0]), Header(0, critic=hashes[1])])


# ---- the class and its file ----


def test_save_and_load(tmp_path):
    critic = Critic(matrix(12), "cca", 300, "llava", strength=0.03, fitted=0.1 + 0.2, held_out=2.5)
    critic.save(tmp_path / FILE_NAME)
    again = Critic.load(tmp_path / FILE_NAME)
    assert torch.equal(again.matrix, critic.matrix)
    for name in ("method", "pairs", "model_type", "strength", "fitted", "held_out", "width"):
        assert getattr(again, name) == getattr(critic, name)
    assert str(again) == "cca, 300 pairs" and again.fingerprint == critic.fingerprint
    Critic(matrix(3).T).save(tmp_path / "own.safetensors")
    own = Critic.load(tmp_path / "own.safetensors")
    assert torch.equal(own.matrix, matrix(3).T)
    assert (str(own), own.strength, own.pairs) == ("given", None, 0)


def test_files_that_are_no_critics(tmp_path):
    with pytest.raises(FileNotFoundError, match="critic: there is no file"):
        Critic.load(tmp_path / "none.safetensors")
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"nothing of the kind")
    good = {"format": "mipruner-critic", "version": "1"}
    spoilt = {
        "not safetensors": None,
        "no metadata": ({"critic": matrix(3)}, None),
        "newer": ({"critic": matrix(3)}, good | {"version": "2"}),
        "no tensor": ({"other": matrix(3)}, good),
        "no square": ({"critic": matrix(3)[:2].clone()}, good),
        "double": ({"critic": matrix(3).double()}, good),
        "not finite": ({"critic": matrix(3) * math.inf}, good),
        "no number": ({"critic": matrix(3)}, good | {"pairs": "many"}),
    }
    for name, content in spoilt.items():
        if content is not None:
            save_file(content[0], path, metadata=content[1])
        with pytest.raises(ValueError, match=r"critic: .* is not a critic"):
            pytest.fail(f"{name}: {Critic.load(path)}")
    save_file({"critic": matrix(3)}, path, metadata=good)
    assert Critic.load(path).width == 3


def test_a_device_gets_one_copy():
    critic = Critic(matrix(5))
    assert critic.on("cpu") is critic.matrix
    other = critic.on("meta")
    assert critic.on(torch.device("meta")) is other and other.device.type == "meta"


def test_public_names():
    assert mi_pruner_cuda.Critic is Critic
    assert mi_pruner_cuda.calibrate is mi_pruner_cuda.critic.calibrate
