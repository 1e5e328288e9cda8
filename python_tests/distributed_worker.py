"""One process of a gloo group for test_distributed: runs every case, saves what it got.

Cases are made from seeds, so that every process and the test itself make the same ones.
"""

import math
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from inputs import related

from mi_pruner_cuda import Mass, defaults, distributed

# Everything in torch.distributed that sends a tensor; select is only to use the first.
SENDING = [
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all",
    "all_to_all_single", "batch_isend_irecv", "broadcast", "broadcast_object_list", "gather",
    "gather_object", "irecv", "isend", "recv", "reduce", "reduce_scatter", "reduce_scatter_tensor",
    "scatter", "scatter_object_list", "send", "send_object_list",
]  # fmt: skip


@dataclass
class Case:
    """Rows of all ranks, where they are cut, and select's arguments."""

    visual: torch.Tensor
    text: torch.Tensor
    keep: object
    sizes: list[int]
    mask: torch.Tensor | None = None
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        # By relevance alone, unless a case is about coverage.
        self.options = {"coverage": 0.0, **self.options}

    def shard(self, rank: int) -> tuple[torch.Tensor, dict]:
        """One rank's rows and its keyword arguments."""
        own = slice(sum(self.sizes[:rank]), sum(self.sizes[: rank + 1]))
        options = dict(self.options)
        # A rank whose rows all count may as well say nothing.
        if self.mask is not None and not self.mask[own].all():
            options["visual_mask"] = self.mask[own]
        return self.visual[own], options


def uneven(n: int, world: int, seed: int) -> list[int]:
    """Random shard sizes."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(n + 1, (world - 1,), generator=generator).sort().values.tolist()
    return [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]


def cases(world: int) -> dict[str, Case]:
    """By name."""
    found = {}

    def add(name, case):
        assert sum(case.sizes) == len(case.visual) and name not in found
        found[name] = case

    for number, estimator in enumerate(("specific", "posterior", "joint", "cosine")):
        for kind, keep in (("count", 7), ("ratio", 0.3), ("mass", Mass(0.6))):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                visual, text = related(61, 9, 37, dtype, seed=number)
                name = f"{estimator} {kind} {str(dtype).removeprefix('torch.')}"
                sizes = uneven(61, world, number)
                add(name, Case(visual, text, keep, sizes, options={"estimator": estimator}))
        visual, text = related(50, 5, 24, seed=10 + number)
        visual[3], visual[11] = 0, -0.0
        visual[7, 2], visual[20, 0], visual[21, 1] = math.nan, math.inf, -math.inf
        mask = torch.arange(50) % 5 != 1
        mask[7], mask[20] = True, False
        options = {"estimator": estimator}
        spoilt = Case(visual, text, 12, uneven(50, world, 30 + number), mask, options)
        add(f"{estimator} spoilt rows and a mask", spoilt)
        add(
            f"{estimator} one word",
            Case(visual, text[:1], 0.25, uneven(50, world, 40 + number), mask, options),
        )
        half = [25, *[0] * (world - 2), 25]
        twins = torch.cat([visual[:25].clone()] * 2)
        add(f"{estimator} twins across the border", Case(twins, text, 9, half, options=options))
        cold = {"estimator": estimator, "temperature": 0.01}
        add(f"{estimator} cold", Case(*related(40, 6, 16), 10, uneven(40, world, 5), options=cold))
        frozen = {"estimator": estimator, "temperature": 1e-6}
        add(
            f"{estimator} frozen", Case(*related(12, 3, 8), 4, uneven(12, world, 6), options=frozen)
        )

    visual, text = related(10, 4, 8)
    add("an empty shard", Case(visual, text, 4, [0, *[10] * 1, *[0] * (world - 2)]))
    add("more than there are", Case(visual, text, 11, uneven(10, world, 7)))
    add("far more than there are", Case(visual, text, 2**70, uneven(10, world, 8)))
    add("one row", Case(visual[:1], text, 0.5, [*[0] * (world - 1), 1]))
    add("no rows", Case(visual[:0], text, 3, [0] * world))
    add("no rows, mass", Case(visual[:0], text, Mass(0.5), [0] * world))
    nothing = torch.zeros(10, dtype=torch.bool)
    add("everything masked", Case(visual, text, 3, uneven(10, world, 9), nothing))
    all_bad = visual.clone()
    all_bad[:, 0] = math.nan
    add("no row is finite", Case(all_bad, text, 3, uneven(10, world, 10)))
    few = all_bad.clone()
    few[4:6] = visual[4:6]
    add("fewer finite rows than asked for", Case(few, text, 4, uneven(10, world, 11)))
    bad_text = text.clone()
    bad_text[1, 0] = math.inf
    add("a word is not finite", Case(visual, bad_text, 4, uneven(10, world, 12)))
    add("one word is finite", Case(visual, bad_text[:2], 4, uneven(10, world, 12)))
    add("no word is finite", Case(visual, bad_text[1:2], 4, uneven(10, world, 13)))
    same = torch.ones(12, 8)
    add("all rows equal", Case(same, text, 5, uneven(12, world, 14)))
    strided = torch.randn(30, 33, generator=torch.Generator().manual_seed(1))[:, ::2][:, :8]
    add("strided rows", Case(strided, text, 6, uneven(30, world, 15)))
    large = torch.randn(30, 8, generator=torch.Generator().manual_seed(2))
    large[::3] *= 3e37
    large[1::3] *= 1e-38
    add("huge and tiny rows", Case(large, text, 6, uneven(30, world, 16)))
    for width in (8, 512):
        add(f"width {width}", Case(*related(300, 20, width), 30, uneven(300, world, 17)))
    spread = {"coverage": 0.5}
    add("covered", Case(*related(50, 6, 16), 14, uneven(50, world, 18), options=spread))
    add("covered, a few rows finite", Case(few, text, 4, uneven(10, world, 19), options=spread))
    gaps = torch.arange(50) % 3 != 1
    add("covered, mask", Case(*related(50, 6, 16), 14, uneven(50, world, 20), gaps, spread))
    default = {"coverage": None}
    for keep in (14, Mass(0.6)):
        case = Case(*related(50, 6, 16), keep, uneven(50, world, 21), options=default)
        add(f"default coverage, {keep}", case)
    many = related(2500, 3, 4)
    add("more rows than a block", Case(*many, 100, [2500, *[0] * (world - 1)]))
    return found


def errors(world: int) -> dict[str, tuple]:
    """By name: arguments by rank (visual, text, keep, options), the error and what it says."""
    visual, text = related(6, 3, 8)
    good = (visual, text, 2, {})
    last = world - 1
    found = {}

    def on_last(name, arguments, kind, *words):
        ranks = [good] * last + [arguments]
        found[name] = (ranks, kind, words)

    two = "on rank 0"
    on_last("dtype", (visual.half(), text.half(), 2, {}), TypeError, "visual_shard", "float16", two)
    on_last("width", (visual[:, :7], text[:, :7], 2, {}), ValueError, "visual_shard", "8", "7")
    on_last("words", (visual, text[:2], 2, {}), ValueError, "text: rows", "3 on", "2 on")
    other = text.clone()
    other[0, 0] += 1
    on_last("other text", (visual, other, 2, {}), ValueError, "text: values", two)
    swapped = text[[1, 0, 2]]
    on_last("order of words", (visual, swapped, 2, {}), ValueError, "text: values")
    on_last("count", (visual, text, 3, {}), ValueError, "keep", "count 2", "count 3")
    on_last("kind of keep", (visual, text, 0.5, {}), ValueError, "keep", "count 2", "ratio 0.5")
    on_last("Mass", (visual, text, Mass(0.5), {}), ValueError, "keep", "Mass 0.5")
    warm = {"temperature": 0.2}
    on_last("temperature", (visual, text, 2, warm), ValueError, "temperature", "0.1", "0.2")
    joint = {"estimator": "joint"}
    on_last("estimator", (visual, text, 2, joint), ValueError, "estimator", "specific", "joint")
    spread = {"coverage": 1.0}
    default = str(defaults.COVERAGE)
    on_last("coverage", (visual, text, 2, spread), ValueError, "coverage", default, "1.0")
    # Wrong on one rank alone: the others hear of it.
    here = f"on rank {last}"
    on_last("no tensor", (visual.tolist(), text, 2, {}), TypeError, "visual_shard: got list", here)
    on_last("integers", (visual.long(), text, 2, {}), TypeError, "visual_shard", "int64", here)
    batch = (visual[None], text[None], 2, {})
    on_last("a batch", batch, ValueError, "visual_shard", "(1, 6, 8)", here)
    on_last("text width", (visual, text[:, :4], 2, {}), ValueError, "text", "4", here)
    on_last("mixed", (visual, text.half(), 2, {}), TypeError, "text", "float16", here)
    on_last("no words", (visual, text[:0], 2, {}), ValueError, "text: got 0 rows", here)
    on_last("keep 0", (visual, text, 0, {}), ValueError, "keep: got 0", here)
    on_last("keep 1.5", (visual, text, 1.5, {}), ValueError, "keep: got 1.5", here)
    on_last("keep True", (visual, text, True, {}), TypeError, "keep: got True", here)
    on_last("cold", (visual, text, 2, {"temperature": 0}), ValueError, "temperature: got 0", here)
    beyond = {"coverage": 1.5}
    on_last("no share", (visual, text, 2, beyond), ValueError, "coverage: got 1.5", "[0, 1]", here)
    unknown = {"estimator": "best"}
    on_last("unknown", (visual, text, 2, unknown), ValueError, "estimator: got 'best'", here)
    mask = {"visual_mask": torch.ones(5, dtype=torch.bool)}
    on_last("mask", (visual, text, 2, mask), ValueError, "visual_mask", "(5,)", "(6,)", here)
    numbers = {"visual_mask": torch.ones(6)}
    on_last("mask dtype", (visual, text, 2, numbers), TypeError, "visual_mask", "float32", here)
    everywhere = [(visual, text, 2, {"temperature": -1.0})] * world
    found["wrong everywhere"] = (everywhere, ValueError, ("temperature: got -1.0",))
    first = [(visual, text, 0, {}), *[good] * last]
    found["wrong on the first"] = (first, ValueError, ("keep: got 0", "on rank 0"))
    return found


class Counter:
    """Counts what this rank sends, in elements, through any function of torch.distributed."""

    def __init__(self):
        self.sent: dict[str, int] = {}
        for name in SENDING:
            if hasattr(dist, name):
                setattr(dist, name, self._counting(name, getattr(dist, name)))

    def _counting(self, name, function):
        def count(*args, **kwargs):
            # all_gather(outputs, input): what is sent is the input; others are refused by the test.
            self.sent[name] = self.sent.get(name, 0) + (
                args[1].numel() if name == "all_gather" else 0
            )
            return function(*args, **kwargs)

        return count


def _result(case: Case, rank: int, counter: Counter) -> dict:
    shard, options = case.shard(rank)
    counter.sent = {}
    got = vars(distributed.select(shard, case.text, case.keep, **options))
    return {**got, "sent": dict(counter.sent)}


def _error(arguments) -> tuple[str, str]:
    visual, text, keep, options = arguments
    try:
        distributed.select(visual, text, keep, **options)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", "nothing was raised"


def _subgroup(rank: int, world: int, case: Case):
    """The case's first two shards on a group of the last two ranks, in the opposite order."""
    group = dist.new_group([world - 2, world - 1])
    if rank < world - 2:
        try:
            distributed.select(case.visual, case.text, case.keep, group)
        except ValueError as error:
            return str(error)
        return "nothing was raised"
    shard, options = case.shard(rank - (world - 2))
    return vars(distributed.select(shard, case.text, case.keep, group, **options))


def main(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    counter = Counter()
    all_cases = cases(world)
    visual, text = related(20, 4, 8)
    halves = Case(visual, text, 5, [13, 7])
    torch.save(
        {
            "first": {name: _result(case, rank, counter) for name, case in all_cases.items()},
            "errors": {name: _error(ranks[rank]) for name, (ranks, *_) in errors(world).items()},
            # After errors: none of them may have left a message behind.
            "again": {name: _result(case, rank, counter) for name, case in all_cases.items()},
            "subgroup": _subgroup(rank, world, halves),
        },
        Path(folder) / f"{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
