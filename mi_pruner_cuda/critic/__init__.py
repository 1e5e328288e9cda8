"""The critic: a linear map that makes visual rows and word embeddings comparable, fitted once per
model. Needed where a projector's rows do not point the way that the embeddings of their words do:
raw cosines then mean little.

    critic = mi_pruner_cuda.calibrate(model, processor, pairs)      # a few hundred pictures, texts
    critic.save("mipruner_critic.safetensors")
    with mi_pruner_cuda.attach(model, keep=0.25, critic=critic):
        model.generate(**inputs)

bilinear.py is what runs at every prompt; the other files fit it.
"""

from .bilinear import FILE_NAME, Critic, apply_critic, fingerprint
from .calibration import HELD_OUT, METHODS, calibrate, fit

__all__ = [
    "FILE_NAME",
    "HELD_OUT",
    "METHODS",
    "Critic",
    "apply_critic",
    "calibrate",
    "fingerprint",
    "fit",
]
