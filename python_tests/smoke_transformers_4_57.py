"""attach on the oldest transformers that is supported: a short script for an environment of its
own.

    python python_tests/smoke_transformers_4_57.py

Runs on any version; the tests beside it, which cover much more, run on the newest. Exits with 1 and
says what differs if something is wrong.
"""

import sys
import warnings

import tiny_models
import tiny_oracle
import torch
import transformers
from tiny_models import SQUARE, Prompt, inputs_for

from mi_pruner_cuda import attach

PROMPTS = [Prompt([20, 21, SQUARE, 30, 31, 32, 33]), Prompt([22, SQUARE, 40]), Prompt([50, 51, 52])]
MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3, "do_sample": False},
}


def generate(model, inputs, **options):
    torch.manual_seed(3)
    return model.generate(**inputs, max_new_tokens=6, **options)


@torch.no_grad()
def check_logits(model, inputs):
    """keep = 1.0 changes no bit; keep = 0.25 is what gathering by hand gives; detach restores."""
    untouched = model(**inputs).logits
    with attach(model, keep=1.0):
        assert torch.equal(model(**inputs).logits, untouched), "keep = 1.0 changed the logits"
    kept = tiny_oracle.kept_columns(model, inputs, [[16], [16], []], 0.25)
    expected = tiny_oracle.pruned_logits(model, inputs, kept)
    with attach(model, keep=0.25) as pruner:
        for cache in (True, False):
            pruned = model(**inputs, use_cache=cache).logits
            for got, row in zip(pruned, expected, strict=True):
                torch.testing.assert_close(got[-len(row) :], row, rtol=0, atol=1e-5)
    assert [r.tokens_after for r in pruner.report] == [4, 4, 0], pruner.report
    assert torch.equal(model(**inputs).logits, untouched), "detach left something behind"


def check_generate(model, inputs, positions):
    """The cache, dynamic or static, makes no difference."""
    with attach(model, keep=0.25, positions=positions):
        for name, options in MODES.items():
            cached = generate(model, inputs, **options)
            again = generate(model, inputs, use_cache=False, **options)
            assert torch.equal(cached, again), f"{name}: cached and uncached generation differ"
        fixed = generate(model, inputs, cache_implementation="static", do_sample=False)
        assert torch.equal(fixed, generate(model, inputs, do_sample=False)), "static cache differs"


def main() -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    failed = 0
    for make in (tiny_models.llava, tiny_models.qwen):
        for attention in ("sdpa", "eager"):
            model = make(attention)
            inputs = inputs_for(model, PROMPTS)
            name = f"{type(model).__name__}, {attention}"
            try:
                check_logits(model, inputs)
                for positions in ("original", "renumbered"):
                    check_generate(model, inputs, positions)
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {name}: {error}")
            else:
                print(f"ok      {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
