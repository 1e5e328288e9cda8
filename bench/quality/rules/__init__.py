"""The published rules for choosing visual tokens, a file for each kind: see RULES.

Each rule is written from its paper's formulas. Its docstring names the paper and the place, says
what the formula leaves open and how that was decided here, and says so where the paper itself could
not be read. All rules obey one contract, which their papers do not always promise: exactly k
distinct rows, ascending, ties to the lower index, the same rows for the same generator state. All
see the same things: rows after the projector, the question's word embeddings, attention maps of the
unpruned model.

`choose` works in double precision on the CPU; `pick`, which is timed, in the precision and on the
device that it is given. Ties go to the lower index in double precision only: in float32 the rules
cost what their papers ask for and no more, and torch decides between equal rows.
"""

from .attention import fastervlm, fastv, visionzip, vispruner
from .contract import MAPS, Rule, Sight
from .diversity import dart, divprune
from .plain import maximum_cosine, random, uniform_grid
from .relevance import cdpruner, mmtok, trimtokenator

__all__ = ["MAPS", "RULES", "Rule", "Sight"]

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        *(random, uniform_grid, maximum_cosine),
        *(divprune, dart),
        *(cdpruner, trimtokenator, mmtok),
        *(fastervlm, vispruner, fastv, visionzip),
    )
}
