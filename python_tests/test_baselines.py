"""The published rules: each against a slow transcription of its formula, and the maps they see."""

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_models import IMAGE, SQUARE, Prompt, inputs_for

from mi_pruner_cuda import Mass, Selection, attach

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench" / "quality"))
from baselines import RULES, selector
from eyes import Eyes
from rules import MAPS, Rule, Sight
from rules.attention import visionzip_parts
from rules.numbers import cosines
from rules.relevance import coverage

torch.set_num_threads(1)

SEEDS = range(4)
ONE = Prompt([20, 21, SQUARE, 30, 31, 32, 33])
TWO = Prompt([22, SQUARE, 40, 41, SQUARE, 42])
NONE = Prompt([50, 51, 52])


def sight(n=12, words=3, width=8, seed=0, rows=None, grid=None) -> Sight:
    """Random rows, words and maps; `rows` replaces the visual ones."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    visual = draw(n, width) if rows is None else rows
    n = len(visual)
    return Sight(
        visual, draw(words, width), draw(n).softmax(0), draw(n, 4), draw(n).softmax(0), grid
    )


def choose(name, view, k, seed=0) -> list[int]:
    return RULES[name].choose(view, k, torch.Generator().manual_seed(seed)).tolist()


def double(view) -> Sight:
    return view.to(torch.float64, "cpu")


def cosine(a, b) -> float:
    """0 for a zero row. Rounded, so that equal rows tie."""
    lengths = float(a.double().norm() * b.double().norm())
    return round(float(a.double() @ b.double()) / lengths, 12) if lengths else 0.0


def distances(rows) -> list[list[float]]:
    return [[1 - cosine(a, b) for b in rows] for a in rows]


def brute_greedy(n, k, value):
    """k times the lowest i with the largest value(chosen + [i])."""
    chosen = []
    for _ in range(k):
        values = {i: value([*chosen, i]) for i in range(n) if i not in chosen}
        best = max(values.values())
        chosen.append(min(i for i, v in values.items() if v >= best - 1e-9))
    return chosen


# The contract.


def odd_rows() -> dict[str, torch.Tensor]:
    rows = torch.randn(11, 8, generator=torch.Generator().manual_seed(5))
    some_zero = rows.clone()
    some_zero[[0, 4, 5]] = 0
    return {
        "plain": rows,
        "even": rows[:10],
        "one": rows[:1],
        "two": rows[:2],
        "twice": torch.cat([rows[:6], rows[:6]]),
        "same": rows[:1].expand(9, -1),
        "zero": some_zero,
        "all zero": torch.zeros(7, 8),
        "low rank": torch.cat([rows[:3], -2 * rows[:3], rows[:3] + rows[1:4]]),
        "half": rows.half(),
    }


@pytest.mark.parametrize("case", odd_rows())
@pytest.mark.parametrize("name", RULES)
def test_every_k_gives_k_distinct_rows_in_order(name, case):
    view = sight(rows=odd_rows()[case])
    n = len(view.visual)
    for k in range(1, n + 1):
        indices = RULES[name].choose(view, k, torch.Generator().manual_seed(k))
        assert indices.dtype == torch.int64 and indices.shape == (k,)
        assert (indices.diff() > 0).all() and indices[0] >= 0 and indices[-1] < n
        assert choose(name, view, k, seed=k) == indices.tolist()
    assert choose(name, view, n) == list(range(n))


def test_precision_and_device_are_those_asked_for():
    def pick(view, k, generator):
        assert view.grid == (3, 4)
        seen.append((view.visual.dtype, view.keys.device.type))
        return torch.arange(k, device=view.visual.device)

    seen, spy = [], Rule("spy", "", frozenset(), pick)
    view = sight(grid=(3, 4))
    spy.choose(view.to(torch.float32, None), 2)
    spy.pick(view.to(torch.float32, None), 2, None)
    assert spy.pick(view.to(torch.float32, "meta"), 2, None).device.type == "meta"
    assert seen == [(torch.float64, "cpu"), (torch.float32, "cpu"), (torch.float32, "meta")]


def quick(name, view, k, seed=0) -> torch.Tensor:
    """As the rules are timed: in float32, unchecked."""
    generator = torch.Generator().manual_seed(seed)
    return RULES[name].pick(view.to(torch.float32, None), k, generator).sort().values


@pytest.mark.parametrize("name", RULES)
def test_float32_chooses_the_same_where_nothing_ties(name):
    view = sight(n=40, width=24, seed=3)
    for k in (1, 7, 20, 40):
        assert quick(name, view, k).tolist() == choose(name, view, k)


@pytest.mark.parametrize("case", odd_rows())
@pytest.mark.parametrize("name", RULES)
def test_float32_gives_k_distinct_rows_too(name, case):
    view = sight(rows=odd_rows()[case])
    n = len(view.visual)
    for k in {1, (n + 1) // 2, n}:
        found = quick(name, view, k)
        assert found.shape == (k,) and (found.diff() > 0).all() and found[0] >= 0 and found[-1] < n


@pytest.mark.parametrize("name", sorted(set(RULES) - {"DART", "MMTok", "VisPruner", "VisionZip"}))
def test_rules_that_never_wait_for_the_device(name):
    """Tensors of the meta device have no values: whoever asks for one fails."""
    view = sight().to(torch.float32, "meta")
    for generator in (None, torch.Generator()):
        found = RULES[name].pick(view, 5, generator)
        assert found.shape == (5,) and found.device.type == "meta"


@pytest.mark.parametrize("name", sorted(set(RULES) - {"random", "uniform grid", "VisPruner"}))
def test_equal_rows_go_to_the_lower_index(name):
    """Rows i and i + 5 are equal in every way: whichever is kept alone is the first."""
    view = sight(n=5, seed=2)
    maps = {m: getattr(view, m) for m in MAPS}
    twice = {m: torch.cat([v, v]) for m, v in maps.items()}
    both = Sight(torch.cat([view.visual] * 2), view.text, **twice)
    for k in range(1, 10):
        kept = choose(name, both, k)
        if name == "VisionZip":  # spreads its targets by place: the dominant ones only
            kept = visionzip_parts(double(both), k)[0].tolist()
        lonely = [i for i in kept if (i + 5) % 10 not in kept]
        assert all(i < 5 for i in lonely), (k, kept)


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_needs_is_what_it_looks_at(name):
    """Without its maps a rule refuses; other maps change nothing."""
    view, rule = sight(seed=1), RULES[name]
    bare = Sight(view.visual, view.text, **{m: getattr(view, m) for m in rule.needs})
    assert choose(name, bare, 5) == choose(name, view, 5)
    for need in rule.needs:
        without = Sight(
            view.visual, view.text, **{m: getattr(view, m) for m in rule.needs - {need}}
        )
        with pytest.raises(ValueError, match=f"{need}: got None"):
            rule.choose(without, 5)
        reverse = torch.arange(12.0).flip(0)
        rising = Sight(view.visual, view.text, **{need: reverse / 10})
        assert choose(name, rising, 5) != choose(name, view, 5)


def test_wrong_arguments_are_named():
    view = sight()
    for k in (0, 13, 2.0, True):
        with pytest.raises(ValueError, match=r"k: got .*\[1, 12\]"):
            RULES["random"].choose(view, k)
    wrong = {
        "visual": (Sight(torch.zeros(0, 8), view.text), "N >= 1"),
        "text": (Sight(view.visual, torch.zeros(3, 7)), r"\(M, 8\)"),
        "keys": (Sight(view.visual, view.text, keys=torch.zeros(11, 4)), r"\(12, Dk\)"),
        "cls_attention": (Sight(view.visual, view.text, torch.zeros(11)), r"\(12,\)"),
        "grid": (Sight(view.visual, view.text, grid=(3, 3)), "h \\* w = 12"),
    }
    for name, (bad, allowed) in wrong.items():
        with pytest.raises(ValueError, match=f"{name}: got .*{allowed}"):
            RULES["random"].choose(bad, 1)
    with pytest.raises(ValueError, match="visual: got NaN or infinity"):
        RULES["random"].choose(Sight(view.visual / 0, view.text), 1)
    no_words = Sight(view.visual, view.text[:0])
    for name in ("maximum cosine", "TrimTokenator"):
        with pytest.raises(ValueError, match=f"text: got 0 rows.*{name}"):
            choose(name, no_words, 3)
    for name in ("CDPruner", "MMTok"):
        assert len(choose(name, no_words, 3)) == 3


def test_rows_of_one_direction_tie():
    """Their cosines are the same to the last digit, whatever their lengths."""
    generator = torch.Generator().manual_seed(0)
    rows, words = (torch.randn(n, 8, generator=generator).double() for n in (50, 3))
    assert torch.equal(cosines(3 * rows, words), cosines(rows, words))


# The formulas.


def test_random_draws_every_set():
    view, generator = sight(n=5), torch.Generator().manual_seed(0)
    draws = [tuple(RULES["random"].choose(view, 2, generator).tolist()) for _ in range(300)]
    assert set(draws) == set(itertools.combinations(range(5), 2))
    assert all(15 <= draws.count(pair) <= 50 for pair in set(draws))  # 30 each


def test_uniform_grid_is_spread():
    square = sight(n=16, grid=(4, 4))
    assert choose("uniform grid", square, 4) == [5, 7, 13, 15]
    assert choose("uniform grid", square, 1) == [10]
    wide = sight(n=16, grid=(2, 8))
    assert choose("uniform grid", wide, 4) == [9, 11, 13, 15]
    for h, w in ((3, 5), (1, 15), (15, 1)):
        view = sight(n=15, grid=(h, w))
        for k in range(1, 16):
            kept = choose("uniform grid", view, k)
            lines = [sum(i // w == y for i in kept) for y in range(h)]
            used = [count for count in lines if count]
            assert len(kept) == k and max(used) - min(used) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_maximum_cosine(seed):
    view = sight(seed=seed)
    score = [max(cosine(v, t) for t in view.text) for v in view.visual]
    expected = sorted(sorted(range(12), key=lambda i: -score[i])[:5])
    assert choose("maximum cosine", view, 5) == expected


def some_rows(seed) -> torch.Tensor:
    """Plain rows; rows that come twice; rows of which some are zero; rows alike."""
    plain = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed))
    if seed == 1:
        plain[6:] = plain[:6]
    if seed == 2:
        plain[[0, 4, 5]] = 0
    return plain + 2 * plain[:1] if seed == 3 else plain


@pytest.mark.parametrize("seed", SEEDS)
def test_divprune_is_the_greedy_of_max_min(seed):
    view = sight(rows=some_rows(seed))
    d = distances(view.visual)

    def nearest(chosen):
        *before, i = chosen
        return min(d[i][j] for j in (before or range(12)) if j != i)

    for k in range(1, 13):
        assert choose("DivPrune", view, k) == sorted(brute_greedy(12, k, nearest))


@pytest.mark.parametrize("words", [0, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_cdpruner_is_the_greedy_of_determinants(seed, words):
    view = sight(n=9, words=words, width=12, seed=seed)
    # Similar rows: where all are nearly orthogonal, relevance alone decides.
    view = replace(view, visual=view.visual + 2 * view.visual[:1])
    relevance = [1.0] * 9
    if words:
        mean = view.text.double().mean(0)
        score = [cosine(v, mean) for v in view.visual]
        low, high = min(score), max(score)
        relevance = [(s - low) / (high - low) for s in score]
    kernel = torch.tensor([[cosine(a, b) for b in view.visual] for a in view.visual]).double()
    scale = torch.tensor(relevance).double()
    kernel = scale[:, None] * kernel * scale

    def log_det(chosen):
        part = torch.linalg.det(kernel[chosen][:, chosen])
        return math.log(part) if part > 1e-30 else -1e3

    for k in (1, 2, 5, 8):
        assert choose("CDPruner", view, k) == sorted(brute_greedy(9, k, log_det))


def test_cdpruner_beyond_the_rank_goes_by_relevance():
    """Rows of a plane: after two of them every determinant is 0."""
    rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    view = Sight(rows, torch.tensor([[1.0, 0.5]]))
    score = [cosine(v, view.text[0]) for v in rows]
    first = choose("CDPruner", view, 2)
    rest = sorted((i for i in range(8) if i not in first), key=lambda i: -score[i])
    for k in range(3, 9):
        assert choose("CDPruner", view, k) == sorted(first + rest[: k - 2])


@pytest.mark.parametrize("seed", SEEDS)
def test_dart_lets_every_pivot_retain_equally_many(seed):
    view = sight(n=30, seed=seed)
    length = view.visual.double().abs().sum(1)
    pivots = sorted(range(30), key=lambda i: -length[i])[:8]
    others = [i for i in range(30) if i not in pivots]
    order = [sorted(others, key=lambda j: cosine(view.visual[p], view.visual[j])) for p in pivots]
    for k in (1, 5, 8, 9, 14, 22, 29):
        kept = set(pivots[:k])
        for m, p in itertools.product(range(len(others)), range(8)):
            if len(kept) < k:
                kept.add(order[p][m])  # pivot p's threshold now admits its m + 1 least similar
        assert choose("DART", view, k) == sorted(kept)


@pytest.mark.parametrize("seed", SEEDS)
def test_trimtokenator(seed):
    view = sight(rows=some_rows(seed))
    away = [float((v.double() - view.text.double().mean(0)).norm()) for v in view.visual]
    for k in range(1, 13):
        near = sorted(sorted(range(12), key=lambda i: away[i])[: min(12, 2 * k)])
        d = distances(view.visual[near])

        def spread(chosen, d=d):
            *before, i = chosen
            compared = before or range(len(d))
            return sum(d[i][j] for j in compared) / len(compared)

        assert choose("TrimTokenator", view, k) == sorted(
            near[i] for i in brute_greedy(len(near), k, spread)
        )


def covered(view, chosen) -> float:
    """MMTok's f(S), entry by entry."""
    total = 0.0
    for targets, temperature, weight in ((view.text, 0.02, 1.0), (view.visual, 0.2, 0.5)):
        for t in targets:
            exps = [math.exp(cosine(t, v) / temperature) for v in view.visual]
            total += weight * max(exps[j] for j in chosen) / sum(exps) / len(targets)
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_mmtok_is_the_greedy_of_coverage(seed):
    view = sight(rows=some_rows(seed)[2:10])
    table = coverage(double(view), 0.02, 0.2, 0.5)
    for chosen in ([0], [1, 4], [2, 3, 7]):
        assert float(table[:, chosen].amax(1).sum()) == pytest.approx(covered(view, chosen))
    for k in range(1, 9):
        kept = choose("MMTok", view, k)
        assert kept == sorted(brute_greedy(8, k, lambda chosen: covered(view, chosen)))
        best = max(covered(view, c) for c in itertools.combinations(range(8), k))
        assert covered(view, kept) >= (1 - 1 / math.e) * best


@pytest.mark.parametrize("seed", SEEDS)
def test_top_k_of_attention(seed):
    view = sight(seed=seed)
    for name, score in (("FasterVLM", view.cls_attention), ("FastV", view.text_attention)):
        expected = sorted(sorted(range(12), key=lambda i: -float(score[i]))[:5])
        assert choose(name, view, 5) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_vispruner_drops_the_later_of_the_closest_pair(seed):
    view = sight(rows=some_rows(seed), seed=seed)
    by_attention = sorted(range(12), key=lambda i: -float(view.cls_attention[i]))
    for k in range(1, 13):
        first = by_attention[: (k + 1) // 2]
        rest = [i for i in range(12) if i not in first]
        while len(rest) > k - len(first):
            if k == 1:
                rest = []
                break
            pairs = itertools.combinations(rest, 2)
            _, later = max(pairs, key=lambda p: cosine(view.visual[p[0]], view.visual[p[1]]))
            rest.remove(later)
        assert choose("VisPruner", view, k) == sorted(first + rest)


@pytest.mark.parametrize("k, contextual", [(64, 10), (128, 20), (192, 30), (1, 0), (4, 1)])
def test_visionzip_keeps_its_published_shares(k, contextual):
    dominant, targets = visionzip_parts(double(sight(n=576)), k)
    assert (len(dominant), len(targets)) == (k - contextual, contextual)


@pytest.mark.parametrize("seed", SEEDS)
def test_visionzip_spreads_and_merges(seed):
    view, k, count = sight(n=20, seed=seed), 13, 2
    by_attention = sorted(range(20), key=lambda i: -float(view.cls_attention[i]))
    dominant = by_attention[: k - count]
    rest = [i for i in range(20) if i not in dominant]
    targets = [rest[0], rest[4]]  # two of nine: places 0 and floor(9 / 2)
    kept = sorted(dominant + targets)
    assert choose("VisionZip", view, k) == kept
    groups = {t: [t] for t in targets}
    for i in rest:
        if i not in targets:
            groups[max(targets, key=lambda t: cosine(view.keys[t], view.keys[i]))].append(i)
    expected = [view.visual[groups.get(i, [i])].double().mean(0) for i in kept]
    rows = RULES["VisionZip"].rows(view, k)
    torch.testing.assert_close(rows, torch.stack(expected))
    assert sum(map(len, groups.values())) == 9
    with pytest.raises(ValueError, match="keys: got None"):
        RULES["VisionZip"].rows(Sight(view.visual, view.text, view.cls_attention), k)


def test_only_visionzip_changes_rows():
    assert [name for name, rule in RULES.items() if rule.rows] == ["VisionZip"]


# The maps, against the model's own attention.


@torch.no_grad()
def look(model, inputs, **options) -> Eyes:
    with Eyes(model, **options) as eyes:
        model(**inputs)
    return eyes


@torch.no_grad()
def of_the_language_model(model, inputs, layer, queries) -> list[torch.Tensor]:
    """Per item (L), from the attentions that the eager model returns."""
    weights = model(**inputs, output_attentions=True).attentions[layer].mean(1)
    found = []
    for map_, mask in zip(weights, inputs["attention_mask"].bool(), strict=True):
        last = int(mask.nonzero()[-1])
        if queries == "last":
            found.append(map_[last])
        else:
            total = map_[mask].sum(0) - map_.diagonal() * mask
            found.append(total / (int(mask.sum()) - 1))
    return found


@pytest.mark.parametrize("queries", ["last", "all"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", ["llava", "qwen"])
def test_text_attention_is_the_models_own(kind, layer, queries):
    make = getattr(tiny_models, kind)
    inputs = inputs_for(make(), [ONE, NONE, TWO])
    eyes = look(make("sdpa"), inputs, text_layer=layer, queries=queries)
    rows = of_the_language_model(make("eager"), inputs, layer, queries)
    places = inputs["input_ids"] == IMAGE
    expected = torch.cat([row[place] for row, place in zip(rows, places, strict=True)])
    assert len(eyes.views) == 3
    torch.testing.assert_close(torch.cat([v.text_attention for v in eyes.views]), expected)


def test_text_attention_of_right_padded_prompts():
    """The last token is the last real one."""
    model = tiny_models.llava()
    inputs = inputs_for(model, [ONE])
    alone = look(model, inputs).views[0].text_attention
    pad = torch.zeros(1, 3, dtype=torch.long)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], pad], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], pad], 1)
    torch.testing.assert_close(look(model, inputs).views[0].text_attention, alone)


@pytest.mark.parametrize("tower_layer", [None, -1])
def test_cls_attention_is_the_towers_own(tower_layer):
    inputs = inputs_for(tiny_models.llava(), [TWO])
    eyes = look(tiny_models.llava(), inputs, tower_layer=tower_layer)
    model = tiny_models.llava("eager")
    with torch.no_grad():
        tower = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    layer = -2 if tower_layer is None else tower_layer  # the projector reads the last but one
    expected = tower.attentions[layer].mean(1)[:, 0, 1:]
    torch.testing.assert_close(torch.stack([v.cls_attention for v in eyes.views]), expected)
    assert [v.grid for v in eyes.views] == [(4, 4), (4, 4)]


@pytest.mark.parametrize("feature, layer", [(-1, -1), (-2, -2), (1, 0), (2, 1)])
def test_the_watched_layer_feeds_the_projector(feature, layer):
    model = tiny_models.llava()
    model.config.vision_feature_layer = feature
    eyes = Eyes(model)
    assert eyes._clip_layer() is eyes._model.model.vision_tower.encoder.layers[layer].self_attn
    inputs = inputs_for(model, [ONE])
    seen = []
    watched = model.model.vision_tower.encoder.layers[layer]
    read = model.model.multi_modal_projector
    handles = [
        watched.register_forward_hook(lambda m, a, out: seen.append(out)),
        read.register_forward_pre_hook(lambda m, a: seen.append(a[0])),
    ]
    with torch.no_grad():
        model(**inputs)
    [handle.remove() for handle in handles]
    assert torch.equal(seen[0][:, 1:], seen[1])


def test_keys_are_the_towers_own():
    model = tiny_models.llava()
    attention = model.model.vision_tower.encoder.layers[-2].self_attn
    seen = []
    handle = attention.k_proj.register_forward_hook(lambda m, a, out: seen.append(out))
    inputs = inputs_for(model, [ONE])
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    expected = seen[0][0, 1:].view(16, 2, 8).mean(1)
    torch.testing.assert_close(look(model, inputs).views[0].keys, expected)


class Recorder:
    """Stands in for a tower's eager attention and keeps its weights."""

    def __init__(self, module):
        self.weights, self.own = {}, module.eager_attention_forward

    def __call__(self, module, *args, **kwargs):
        output, weights = self.own(module, *args, **kwargs)
        self.weights.setdefault(module, []).append(weights[0])
        return output, weights


def test_what_qwens_patches_receive(monkeypatch):
    """Two images, of which the second has another shape; in the order of the image, not windows."""
    model = tiny_models.qwen("eager")
    inputs = inputs_for(model, [Prompt([20, (4, 6), 30]), Prompt([21, (2, 4), 31])])
    module = sys.modules[type(model).__module__]
    recorder = Recorder(module)
    monkeypatch.setattr(module, "eager_attention_forward", recorder)
    eyes = look(model, inputs)
    assert [v.grid for v in eyes.views] == [(4, 6), (2, 4)]
    tower = model.model.visual
    weights = recorder.weights[tower.blocks[1].attn]
    assert [w.shape[-1] for w in weights] == [96, 32]  # full attention: an image each
    order, _ = module.get_vision_window_index(inputs["image_grid_thw"], 2, 16, 4)
    assert order.tolist() != sorted(order.tolist())  # windows do change the order
    received = torch.cat([w.mean((0, 1)) for w in weights])
    merged = torch.empty(32)
    for place, row in enumerate(order.tolist()):
        merged[row] = received[4 * place : 4 * place + 4].mean()
    torch.testing.assert_close(torch.cat([v.cls_attention for v in eyes.views]), merged)
    assert [tuple(v.keys.shape) for v in eyes.views] == [(24, 8), (8, 8)]


def test_qwens_keys_follow_the_patches():
    """A patch's content moves its own row's key only, in a layer that has seen no attention."""
    model = tiny_models.qwen()
    prompt = Prompt([20, (4, 6), 30])
    inputs = inputs_for(model, [prompt])
    before = look(model, inputs, tower_layer=0).views[0].keys
    for row in (0, 5, 13):
        changed = dict(inputs)
        changed["pixel_values"] = inputs["pixel_values"].clone()
        changed["pixel_values"][4 * row + 1] += 1.0
        after = look(model, changed, tower_layer=0).views[0].keys
        assert (after - before).abs().amax(1).nonzero()[:, 0].tolist() == [row]


# Together with attach.


@pytest.mark.parametrize("kind", ["llava", "qwen"])
@pytest.mark.parametrize("first", ["eyes", "attach"])
def test_attach_keeps_what_the_rule_chose(kind, first):
    """Whichever was there first, the eyes see the unpruned prompt."""
    model = getattr(tiny_models, kind)()
    inputs = inputs_for(model, [ONE, NONE, TWO])
    expected = look(model, inputs)
    eyes = Eyes(model)
    for name in ("FastV", "FasterVLM"):
        choice = selector(RULES[name], eyes)
        options = {"keep": 0.25, "selector": choice}
        if first == "attach":
            pruner = attach(model, **options)
            with eyes, torch.no_grad():
                model(**inputs)
            pruner.detach()
        else:
            with eyes, attach(model, **options) as pruner, torch.no_grad():
                model(**inputs)
        found = [entry for entry in pruner.report if entry.image is not None]
        assert len(found) == 3
        for entry, view in zip(found, expected.views, strict=True):
            map_ = view.text_attention if name == "FastV" else view.cls_attention
            assert entry.indices.tolist() == map_.topk(4).indices.sort().values.tolist()
            assert name in entry.reason


@pytest.mark.parametrize("kind", ["llava", "qwen"])
def test_generate_with_eyes_is_that_of_the_kept_rows(kind):
    """Eyes change nothing but the choice, in every step; the latest prefill's views stay."""
    model = getattr(tiny_models, kind)()
    inputs = inputs_for(model, [ONE])
    plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with Eyes(model) as eyes:
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), plain)
        assert len(eyes.views) == 1 and eyes.views[0].text_attention is not None
        for _ in range(2):  # the second call begins anew
            with attach(model, keep=5, selector=selector(RULES["FastV"], eyes)) as pruner:
                got = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            assert pruner.report[0].tokens_after == 5
    kept = pruner.report[0].indices

    def fixed(visual, text, keep):
        return Selection(kept, torch.zeros(16), 5, "fixed")

    with attach(model, keep=5, selector=fixed):
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), got)


def test_eyes_leave_no_hook_behind():
    for model in (tiny_models.llava(), tiny_models.qwen()):
        with Eyes(model):
            pass
        for module in model.modules():
            assert not module._forward_pre_hooks and not module._forward_hooks


def test_a_selector_without_eyes():
    view = sight(n=16)
    selection = selector(RULES["DivPrune"])(view.visual, view.text, 0.25)
    assert selection.indices.tolist() == choose("DivPrune", view, 4)
    assert selection.n_kept == 4 and selection.scores.tolist() == [0.0] * 16
    generator = torch.Generator().manual_seed(3)
    draw = selector(RULES["random"], None, generator)
    draws = [draw(view.visual, view.text, 4).indices.tolist() for _ in range(2)]
    assert draws[0] != draws[1]


def test_what_the_eyes_refuse():
    model = tiny_models.llava()
    for name in ("FastV", "VisPruner"):
        with pytest.raises(ValueError, match=f"eyes: got None.*{name}"):
            selector(RULES[name])
    with pytest.raises(ValueError, match="eyes: got text_layer None"):
        selector(RULES["FastV"], Eyes(model, text_layer=None))
    with pytest.raises(TypeError, match="model: got LlavaModel"):
        Eyes(model.model)
    with pytest.raises(ValueError, match=r"text_layer: got 2, allowed is \[0, 2\)"):
        Eyes(model, text_layer=2)
    with pytest.raises(ValueError, match="queries: got 'first'"):
        Eyes(model, queries="first")
    eyes = look(model, inputs_for(model, [ONE]), text_layer=None)
    assert eyes.views[0].text_attention is None
    with pytest.raises(ValueError, match=r"visual: got 9 rows, allowed are the 16"):
        eyes.next(9)
    with pytest.raises(ValueError, match="image 1, allowed are the 1 images"):
        eyes.next(16)
    with pytest.raises(TypeError, match="keep: got Mass"):
        selector(RULES["random"])(torch.eye(3), torch.eye(3), Mass(0.5))
