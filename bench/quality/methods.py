"""The ways of choosing visual tokens that the study compares: ours with its options, and the
published rules.

    kept = Ours(redundancy=0.25).choose(room, question, k)     # int64 (k), ascending
"""

import dataclasses

import torch
from baselines import RULES, Sight
from eyes import View
from reader import Reader

from mi_pruner_cuda import defaults, select


@dataclasses.dataclass
class Room:
    """What a method may look at: a reader, and what its model computed for itself.

    views: one per scene; attention: float32 (Q, N); both only where rules look at them.
    critics: name -> what select takes as critic.
    draws: of the rules that draw.
    """

    reader: Reader
    views: list[View] | None = None
    attention: torch.Tensor | None = None
    critics: dict = dataclasses.field(default_factory=dict)
    draws: torch.Generator = dataclasses.field(default_factory=torch.Generator)

    def rows(self, question: int) -> torch.Tensor:
        """(N, D)."""
        return self.reader.rows[self.reader.exam.scene_of[question]]

    def sight(self, question: int) -> Sight:
        """What a published rule sees."""
        scene = self.reader.exam.scene_of[question]
        maps = {}
        if self.views is not None:
            maps = {**vars(self.views[scene]), "text_attention": self.attention[question]}
        return Sight(self.rows(question), self.reader.text(question), **maps)


@dataclasses.dataclass(frozen=True)
class Ours:
    """mi_pruner_cuda.select; what is not given is the library's default.

    query: "question" or "all"; critic: a name in the room's critics, or "" for none.
    """

    estimator: str = defaults.ESTIMATOR
    temperature: float = defaults.TEMPERATURE
    redundancy: float = defaults.REDUNDANCY
    coverage: float = defaults.COVERAGE
    query: str = "question"
    critic: str = ""

    needs_maps = False

    @property
    def name(self) -> str:
        """Everything that tells it from others, in words."""
        words = [f"ours: {self.estimator}, temperature {self.temperature:g}"]
        words += [f"redundancy {self.redundancy:g}", f"coverage {self.coverage:g}"]
        if self.query == "all":
            words.append("all text")
        if self.critic:
            words.append(f"critic {self.critic}")
        return ", ".join(words)

    def choose(self, room: Room, question: int, k: int) -> torch.Tensor:
        options = ("estimator", "temperature", "redundancy", "coverage")
        return select(
            room.rows(question),
            room.reader.text(question, self.query),
            k,
            critic=room.critics[self.critic] if self.critic else None,
            **{name: getattr(self, name) for name in options},
        ).indices

    def rows(self, room: Room, question: int, k: int) -> None:
        """Ours leaves rows as they are."""


@dataclasses.dataclass(frozen=True)
class Published:
    """One of RULES."""

    name: str

    @property
    def needs_maps(self) -> bool:
        return bool(RULES[self.name].needs)

    def choose(self, room: Room, question: int, k: int) -> torch.Tensor:
        return RULES[self.name].choose(room.sight(question), k, room.draws)

    def rows(self, room: Room, question: int, k: int) -> torch.Tensor | None:
        """(k, D) for a rule that changes what it keeps, else None."""
        change = RULES[self.name].rows
        return (
            None
            if change is None
            else change(room.sight(question).to(torch.float64, "cpu"), k).float()
        )


Method = Ours | Published
