"""lmms-eval's own model classes, each with a pruner attached to the model that it loads.

lmms-eval finds `manifests` by an entry point. Each class is made when it is asked for, since every
module of lmms-eval's models brings dependencies of its own.
"""

import functools
import inspect

from mi_pruner_cuda import attach

from .arguments import split_arguments
from .tally import Tally

# Those that take prompts through the processor's chat template: attach learns that template and
# leaves its words out of the question. lmms-eval's "simple" classes bring templates of their own.
MODELS = ("llava_hf", "qwen2_5_vl", "qwen3_vl", "internvl_hf")
PREFIX = "mipruner_"


class GenerationFailed(BaseException):
    """generate raised, and the run must end.

    Not an Exception: several of lmms-eval's classes catch those around generate and go on with an
    empty answer, which then counts as a wrong one.
    """


def manifests() -> list:
    """What lmms-eval's registry reads: mipruner_NAME for each of MODELS."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(PREFIX + name, chat_class_path=f"{__name__}.{PREFIX}{name}")
        for name in MODELS
    ]


def __getattr__(name: str) -> type:
    if name.startswith(PREFIX) and name.removeprefix(PREFIX) in MODELS:
        return _pruned(name.removeprefix(PREFIX))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _pruned(model_id: str) -> type:
    """A subclass of lmms-eval's class that also takes attach's arguments."""
    from lmms_eval.models import get_model

    base = get_model(model_id)
    parameters = inspect.signature(base.__init__).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]

    class Pruned(base):
        def __init__(self, **arguments):
            options, own = split_arguments(arguments, names)
            super().__init__(**own)
            self.pruner = None
            if options is not None:
                self.pruner = attach(self.model, tokenizer=_processor(self), **options)
            self._tally = Tally()
            self.model.generate = _watched(self.model.generate, self.pruner, self._tally)

        def generate_until(self, requests):
            answers = super().generate_until(requests)
            _log(self._tally)
            return answers

    Pruned.__name__ = Pruned.__qualname__ = PREFIX + model_id
    return Pruned


def _watched(generate, pruner, tally: Tally):
    """generate, whose failure ends the run, and after which the pruner's report is counted."""

    @functools.wraps(generate)
    def watched(*args, **kwargs):
        try:
            output = generate(*args, **kwargs)
        except Exception as error:
            raise GenerationFailed(f"{type(error).__name__}: {error}") from error
        if pruner is not None:
            tally.add(pruner.report)
        return output

    return watched


def _processor(model):
    """The processor that lmms-eval's class keeps, under either of its names."""
    return getattr(model, "processor", None) or model._image_processor


def _log(tally: Tally) -> None:
    """Hands the means over to lmms-eval, whose result file then holds them under throughput."""
    from lmms_eval.models.model_utils.gen_metrics import log_metrics

    if tally.images:
        # No time and no tokens: those of generate are counted by the class itself.
        log_metrics(0.0, 0, 0.0, additional_metrics=tally.means())
