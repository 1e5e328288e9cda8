"""Fitting a critic: the methods on a world whose truth is known."""

import pytest
import torch

from mi_pruner_cuda import select
from mi_pruner_cuda.critic import METHODS, fit
from mi_pruner_cuda.critic.observe import Observation

torch.set_num_threads(1)

# ---- a world whose truth is known ----

WIDTH, WORDS, ROWS = 32, 24, 40


class World:
    """Visual rows are R (word + noise) + offset, R a random linear map: no cosine tells the word.

    A picture shows a few words, each in a few rows; the others are noise. Its text names them, or
    (asks) one of them among template words that no picture shows.
    """

    def __init__(self, seed=0):
        self.random = torch.Generator().manual_seed(seed)
        self.words = self.normal(WORDS, WIDTH)
        self.template = self.normal(4, WIDTH)
        self.map = self.normal(WIDTH, WIDTH)
        self.offset = 2 * self.normal(WIDTH)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.random)

    def picture(self):
        """(N, D) rows, and the word of each row, -1 for background."""
        shown = torch.randperm(WORDS, generator=self.random)[:6]
        owner = torch.full((ROWS,), -1)
        owner[:18] = shown.repeat(3)
        owner = owner[torch.randperm(ROWS, generator=self.random)]
        meant = torch.where(owner[:, None] < 0, self.normal(ROWS, WIDTH), self.words[owner])
        rows = (meant + 0.3 * self.normal(ROWS, WIDTH)) @ self.map.T + self.offset
        return rows, owner

    def observation(self, asks=False):
        rows, owner = self.picture()
        named = owner[owner >= 0].unique()
        named = named[torch.randint(len(named), (1,), generator=self.random)] if asks else named
        text = torch.cat([self.template, self.words[named]])
        unit = torch.nn.functional.normalize
        # What attention would compare: contents, with noise and what a softmax does not see.
        contents = (rows - self.offset) @ torch.linalg.inv(self.map).T
        logits = text @ contents.T + self.normal(len(text), ROWS) + 5 * self.normal(len(text), 1)
        return Observation(unit(rows, dim=-1), unit(text, dim=-1), logits)

    def recall(self, critic, questions=40):
        """Share of the asked word's rows among the 10 % kept (chance: 10 %)."""
        found = []
        for _ in range(questions):
            rows, owner = self.picture()
            asked = owner[owner >= 0][0]
            text = torch.cat([self.template, self.words[asked][None]])
            kept = select(rows, text, 4, redundancy=0, coverage=0, critic=critic).indices
            found.append((owner[kept] == asked).sum().item() / 3)
        return sum(found) / len(found)


def test_cosines_alone_find_nothing():
    assert World(0).recall(None) < 0.15


@pytest.mark.parametrize(
    "method, asks", [*((method, False) for method in METHODS), ("attention", True)]
)
def test_a_few_hundred_pairs_make_rows_comparable(method, asks):
    """Captions do for all methods, questions about one word for attention."""
    world = World(0)
    critic = fit([world.observation(asks) for _ in range(300)], method)
    assert world.recall(critic) > 0.85
    assert critic.method == method and critic.pairs == 300 and critic.model_type == ""
    assert critic.fitted >= critic.held_out - 0.1 > 0.5
    assert critic.matrix.norm().item() == pytest.approx(WIDTH**0.5, rel=1e-4)


@pytest.mark.filterwarnings("ignore:calibrate")
@pytest.mark.parametrize("method", METHODS)
def test_the_same_pairs_give_the_same_critic(method):
    first, second = (fit(map(World(3).observation, [False] * 12), method) for _ in range(2))
    assert torch.equal(first.matrix, second.matrix)


@pytest.mark.filterwarnings("ignore:calibrate")
@pytest.mark.parametrize("method", METHODS)
def test_fewer_pairs_than_dimensions(method):
    critic = fit([World(seed).observation() for seed in range(15)], method, strengths=[0.1])
    assert critic.matrix.isfinite().all() and critic.strength == 0.1


@pytest.mark.parametrize("method", ["whitening", "cca", "ridge"])
def test_texts_of_other_pictures_are_seen_through(method):
    world = World(1)
    pairs = [world.observation() for _ in range(60)]
    wrong = [Observation(a.visual, b.text) for a, b in zip(pairs, pairs[7:] + pairs, strict=False)]
    with pytest.warns(RuntimeWarning, match="the held-out pairs do not bear out this critic"):
        fit(wrong, method)


def test_logits_of_other_pictures_are_seen_through():
    world = World(1)
    pairs = [world.observation() for _ in range(60)]
    for pair in pairs:
        pair.logits.normal_(generator=world.random)
    with pytest.warns(RuntimeWarning, match="correlation with the model's attention logits"):
        fit(pairs, "attention")


def test_the_strength_is_chosen_by_the_pairs_held_out():
    world = World(2)
    pairs = [world.observation() for _ in range(100)]
    by_strength = {s: fit(pairs, "ridge", strengths=[s]) for s in (0.003, 3.0, 300.0)}
    best = max(by_strength, key=lambda s: by_strength[s].held_out)
    chosen = fit(pairs, "ridge", strengths=list(by_strength))
    assert chosen.strength == best != 300.0
    assert torch.equal(chosen.matrix, by_strength[best].matrix)


def second_moment(rows):
    """With the ridge of strength 0.1; float64."""
    rows = rows.double()
    moment = rows.T @ rows / len(rows)
    return moment + 0.1 * moment.trace() / WIDTH * torch.eye(WIDTH)


def inverse_root(moment):
    values, vectors = torch.linalg.eigh(moment)
    return vectors @ torch.diag(values**-0.5) @ vectors.T


def test_each_method_is_its_formula():
    world = World(4)
    pairs = [world.observation() for _ in range(50)]
    fitted = [pair for number, pair in enumerate(pairs, start=1) if number % 5]
    # In float64: rounding would count as directions that the texts span.
    v, t = (
        torch.stack([getattr(p, n).double().mean(0) for p in fitted]) for n in ("visual", "text")
    )
    cross = t.T.double() @ v.double() / len(v)
    expected = {"ridge": cross @ torch.linalg.inv(second_moment(v))}
    left, right = inverse_root(second_moment(t)), inverse_root(second_moment(v))
    a, s, b = torch.linalg.svd(left @ cross @ right)
    expected["cca"] = left @ a @ torch.diag(s) @ b @ right
    of_text, of_rows = (second_moment(torch.cat([getattr(p, n) for p in fitted]))
                        for n in ("text", "visual"))  # fmt: skip
    left, right = inverse_root(of_text), inverse_root(of_rows)
    a, s, b = torch.linalg.svd(left @ cross @ right)
    a, b = a[:, s > 1e-9 * s[0]], b[s > 1e-9 * s[0]]  # texts here span fewer dimensions
    expected["whitening"] = left @ a @ b @ right
    logits = 0.0
    for pair in fitted:
        centred = pair.logits - pair.logits.mean(1, keepdim=True)
        logits = logits + pair.text.T.double() @ centred.double() @ pair.visual.double()
    expected["attention"] = torch.linalg.inv(of_text) @ logits @ torch.linalg.inv(of_rows)
    for method, matrix in expected.items():
        got = fit(pairs, method, strengths=[0.1]).matrix
        matrix = matrix / matrix.norm() * WIDTH**0.5  # the scale does not count
        torch.testing.assert_close(got, matrix.float(), rtol=1e-3, atol=2e-4, msg=method)


def test_what_a_softmax_over_rows_does_not_see_does_not_count():
    world = World(5)
    pairs = [world.observation() for _ in range(20)]
    shifted = [
        Observation(p.visual, p.text, p.logits + 50 * world.normal(len(p.text), 1)) for p in pairs
    ]
    first, second = (fit(given, "attention") for given in (pairs, shifted))
    torch.testing.assert_close(first.matrix, second.matrix, rtol=1e-2, atol=1e-3)
    assert first.held_out == pytest.approx(second.held_out, abs=1e-3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"method": "best"}, ValueError, "method: got 'best', allowed are whitening"),
        ({"strengths": []}, TypeError, "strengths: got"),
        ({"strengths": [0.0]}, ValueError, "strengths: got 0.0"),
        ({"strengths": ["a"]}, TypeError, "strengths: got 'a'"),
        ({"observations": []}, ValueError, "pairs: got 0, allowed are at least 10"),
    ],
)
def test_wrong_arguments_of_fit(change, error, message):
    arguments = {"observations": [World().observation()], "method": "ridge"} | change
    with pytest.raises(error, match=message):
        fit(**arguments)
