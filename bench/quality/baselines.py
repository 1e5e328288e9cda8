"""The published training-free rules for choosing visual tokens, to compare our selection with.

    from baselines import RULES, selector
    from eyes import Eyes

    rule = RULES["FasterVLM"]
    with Eyes(model) as eyes, attach(model, keep=0.25, selector=selector(rule, eyes)):
        model.generate(**inputs)

The rules themselves, and what they promise, are in rules/. Here they choose in double precision on
the CPU; bench/bench_methods.py times them in float32.
"""

from collections.abc import Callable

import torch
from eyes import Eyes, View
from rules import RULES, Rule, Sight

from mi_pruner_cuda import Selection
from mi_pruner_cuda.budget import resolve

__all__ = ["RULES", "Rule", "Sight", "selector"]


def selector(
    rule: Rule, eyes: Eyes | None = None, generator: torch.Generator | None = None
) -> Callable:
    """A rule as attach wants it: selector=selector(rule, eyes, generator).

    Args:
        rule: one of RULES.
        eyes: watches the same model, in its with statement; may be None for rules that look at no
            map, which then take the rows for a square.
        generator: on the CPU, for rules that draw.

    Returns:
        A function of (visual (N, D), text (M, D), keep) that returns a Selection; its scores are 0.

    Raises:
        ValueError: the rule needs maps that nobody gives it.
    """
    if rule.needs and eyes is None:
        needs = ", ".join(sorted(rule.needs))
        raise ValueError(f"eyes: got None, allowed are Eyes: {rule.name} looks at {needs}")
    if "text_attention" in rule.needs and not eyes.has_text:
        raise ValueError(f"eyes: got text_layer None, allowed is a layer: {rule.name} looks at it")

    def select(visual: torch.Tensor, text: torch.Tensor, keep) -> Selection:
        n = visual.shape[0]
        view = View() if eyes is None else eyes.next(n)
        indices = rule.choose(Sight(visual, text, **vars(view)), resolve(keep, n), generator)
        return Selection(
            indices.to(visual.device),
            torch.zeros(n, device=visual.device),
            len(indices),
            rule.name,
        )

    return select
