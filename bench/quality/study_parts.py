"""What the study measures: its parts, each a list of runs of a method at a budget."""

import dataclasses

from baselines import RULES
from methods import Method, Ours, Published

from mi_pruner_cuda.critic.calibration import METHODS
from mi_pruner_cuda.reference import ESTIMATORS

KEEPS = (0.75, 0.5, 0.25, 0.1, 0.05, 0.02)
TIGHT = (0.25, 0.1)  # where methods differ and answers are still worth having
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 1.0)
REDUNDANCIES = (0.0, 0.1, 0.25, 0.5, 1.0)
COVERAGES = (0.0, 0.25, 0.5, 0.75, 1.0)
SPREAD = 0.5  # the coverage at which estimators are compared a second time


@dataclasses.dataclass(frozen=True)
class Run:
    """A method at a share of the tokens; method None keeps all."""

    method: Method | None
    keep: float = 1.0
    positions: str = "original"

    @property
    def name(self) -> str:
        return "all tokens" if self.method is None else self.method.name


@dataclasses.dataclass(frozen=True)
class Part:
    """per_family: questions of each family, where the command line does not say."""

    runs: tuple[Run, ...]
    per_family: int


RELEVANCE = Ours(redundancy=0.0, coverage=0.0)


def _rules() -> tuple[Run, ...]:
    methods = [Ours(), RELEVANCE, *map(Published, RULES)]
    keeps = dict.fromkeys((*TIGHT, *KEEPS))  # where methods differ comes first
    return (Run(None), *(Run(m, keep) for keep in keeps for m in dict.fromkeys(methods)))


def _options() -> tuple[Run, ...]:
    """Every estimator, temperature and redundancy; coverage with every redundancy, and half of it
    with every estimator."""
    plain = [
        Ours(estimator, temperature, redundancy, 0.0)
        for estimator in ESTIMATORS
        for temperature in TEMPERATURES
        for redundancy in REDUNDANCIES
        if estimator != "cosine" or temperature == 0.1 or redundancy > 0
    ]
    spread = [Ours(redundancy=r, coverage=c) for c in COVERAGES for r in REDUNDANCIES]
    spread += [Ours(e, redundancy=r, coverage=SPREAD) for e in ESTIMATORS for r in REDUNDANCIES]
    return (Run(None), *(Run(m, keep) for keep in TIGHT for m in dict.fromkeys(spread + plain)))


# What is best of each estimator on the way, reported group by group as well.
CONTENDERS = (
    Ours("posterior", 0.1, 0.1, 0.0),
    Ours("posterior", 0.05, 1.0, 0.0),
    Ours("joint", 0.05, 1.0, 0.0),
    Ours("cosine", 0.02, 1.0, 0.0),
    Ours(redundancy=0.25, coverage=SPREAD),
)


def _text() -> tuple[Run, ...]:
    ways = [(Ours(), "original"), (Ours(), "renumbered"), (Ours(query="all"), "original")]
    return tuple(Run(m, keep, positions) for keep in KEEPS for m, positions in ways)


def _critics() -> tuple[Run, ...]:
    plain = [RELEVANCE, Ours()]
    mapped = [dataclasses.replace(m, critic=name) for m in plain for name in METHODS]
    return tuple(Run(m, keep) for keep in TIGHT for m in dict.fromkeys(plain + mapped))


PARTS = {
    "rules": Part(_rules(), 200),
    "options": Part(_options(), 50),
    "text": Part(_text(), 100),
    "critics": Part(_critics(), 100),
}
