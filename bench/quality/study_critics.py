"""Critics for the study's models, fitted as a user would: on training scenes with texts alone."""

from pairs import draw

from mi_pruner_cuda import Critic, calibrate

PAIRS = 300
SEED = 7


def fit_critic(model, processor, world: str, method: str) -> Critic:
    """world: "demo" or "study"; method: as calibrate has them."""
    # The model's own attention can be looked at with any text about the picture; the other methods
    # need one that names what the picture shows.
    kind = "questions" if method == "attention" else "captions"
    pairs = [(scene.image, texts[kind]) for scene, texts in draw(world, PAIRS, SEED)]
    return calibrate(model, processor, pairs, method)
