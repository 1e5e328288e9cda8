"""Questions of the accuracy study, and what each asks about.

    exam = draw_exam("study", split="study", seed=1, per_family=200)

Scans are held out from every training, and held apart from each other: "study" is what methods are
chosen on, "final" is looked at once, at the end.
"""

import dataclasses

import numpy as np
from vlm_batches import COURSES

from mi_pruner_cuda.demo import scenes
from mi_pruner_cuda.demo.scenes import Question, Scene


@dataclasses.dataclass(frozen=True)
class Exam:
    """S scenes and Q questions about them.

    scene_of: int64 (Q), ascending; asked: bool (Q, N), the patches of the objects asked about.
    """

    scenes: list[Scene]
    questions: list[Question]
    scene_of: np.ndarray
    asked: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    def families(self) -> np.ndarray:
        """str (Q)."""
        return np.array([question.family for question in self.questions])

    def recall(self, kept: np.ndarray) -> np.ndarray:
        """float64 (Q): the share of the asked patches among kept, int64 (Q, K); NaN where a
        question asks about no object."""
        found = np.take_along_axis(self.asked, kept, 1).sum(1)
        total = self.asked.sum(1)
        return np.divide(found, total, out=np.full(len(found), np.nan), where=total > 0)


def draw_exam(world: str, split: str, seed: int, per_family: int) -> Exam:
    """As many questions of each family, each scene asked once per family where it allows one.

    Args:
        world: "demo" or "study".
        split: of the scans, "test" or one of its halves, "study" and "final".
        seed: of scenes and questions.
        per_family: how many questions of each family.
    """
    course = COURSES[world]
    drawn, rng = course.world(split, seed), np.random.default_rng([seed, 13])
    missing = dict.fromkeys(course.families, per_family)
    pictures, questions, scene_of, asked = [], [], [], []
    while any(missing.values()):
        scene = drawn.scene(rng)
        owners = scenes.patch_owners(scene)
        found = [_ask(drawn, scene, rng, family) for family in missing]
        found = [q for q in found if q is not None and missing[q.family]]
        for question in found:
            missing[question.family] -= 1
            scene_of.append(len(pictures))
            asked.append(np.isin(owners, question.objects))
        questions += found
        pictures += [scene] if found else []
    return Exam(pictures, questions, np.array(scene_of), np.array(asked))


def _ask(world, scene: Scene, rng, family: str) -> Question | None:
    try:
        return world.ask(scene, rng, family)
    except ValueError:  # this scene allows no question of that family
        return None
