"""calibrate: fits a critic to a model.

All methods are closed forms of sums over pairs, computed in float64, which neither autocast nor
torch's precision of float32 products touches. Nothing is centred: a critic is linear and has no
offset, so the fit itself must make what all pictures share (their mean row, which in many models
is most of each row) speak for no word.
"""

import warnings
from collections.abc import Iterable, Sequence

import torch

from .. import _checks
from .attention import AttentionLogits
from .bilinear import Critic
from .cca import CanonicalCorrelation
from .ridge import Ridge
from .whitening import Whitening

METHODS = {
    "whitening": Whitening,
    "attention": AttentionLogits,
    "cca": CanonicalCorrelation,
    "ridge": Ridge,
}
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
LEAST_PAIRS = 10
HELD_OUT = 5  # every fifth pair
_OF_A_PAIR = (TypeError, ValueError, FileNotFoundError, OSError)  # what a wrong pair raises


def calibrate(
    model,
    processor,
    pairs: Iterable,
    method: str = "whitening",
    *,
    layers: Sequence[int] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Critic:
    """A critic for a model, from pictures with texts about them; no labels, no gradients.

    A fifth of the pairs (every fifth) is held out; the strength whose fit suits them best is taken.
    The same pairs in the same order give the same critic.

    Args:
        model: a transformers vision-language model that attach takes, in eval mode, without a
            pruner.
        processor: its processor. None where pairs are model inputs: then every text token but
            special ones counts, as in attach without a tokenizer.
        pairs: (picture, text) each, or mappings of model inputs of one prompt each; at least
            10, better a few hundred. The picture: a Pillow image, a path or an array. Texts should
            name what their pictures show (captions); for "attention" questions about them do too.
        method:
            "whitening", which keeps most answers (bench/quality/README.md): whitens the rows of
                both sides and turns them onto each other by the pairs (whitening.py). Fit, also for
                "cca" and "ridge": by how many standard deviations a picture's own text stands above
                other texts, each word matched with its best row.
            "attention": regresses the logits of the model's own early attention (attention.py).
                Fit: their correlation with the critic's.
            "cca": regularised canonical correlation of the pairs' mean rows (cca.py).
            "ridge": the mean text row predicted from the mean visual row (ridge.py).
        layers: for "attention", numbers of decoder layers; by default the first third of them.
        strengths: of the regularisation, shares of the mean eigenvalue, to choose from.

    Returns:
        Critic, its matrix on the CPU. A RuntimeWarning says where the held-out pairs do not bear
        it out: such a critic prunes no better than chance.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        RuntimeError: the model is in training mode or has a pruner.
    """
    # It loads what reads models; a critic that is only applied needs none.
    from ..huggingface.wrapped import unwrap
    from .observe import Observer

    _check_method(method)
    model = unwrap(model)
    numbers = _layers(model, METHODS[method], layers)
    with Observer(model, processor, numbers) as observer:
        seen = _observed(observer, pairs, processor, model)
        return fit(seen, method, strengths, model_type=model.config.model_type)


@torch.no_grad()
def fit(
    observations: Iterable,
    method: str,
    strengths: Sequence[float] = STRENGTHS,
    model_type: str = "",
) -> Critic:
    """calibrate, from rows that were taken by other means.

    Args:
        observations: mi_pruner_cuda.critic.observe.Observation, one per pair, with logits for
            "attention".
        method, strengths: as in calibrate.
        model_type: what the critic is for; "" for any model.
    """
    _check_method(method)
    _check_strengths(strengths)
    kind = METHODS[method]
    fitted, held_out, count = kind(), kind(), 0
    for seen in observations:
        count += 1
        (held_out if count % HELD_OUT == 0 else fitted).add(seen)
    if count < LEAST_PAIRS:
        raise ValueError(f"pairs: got {count}, allowed are at least {LEAST_PAIRS}")
    strength, matrix = _best(fitted, held_out, strengths)
    score = held_out.score(matrix)
    if not score > held_out.chance:
        warnings.warn(
            f"calibrate: the held-out pairs do not bear out this critic ({kind.measure}: "
            f"{score:.3g}, where chance reaches {held_out.chance:.3g}). Give more pairs, texts "
            "that name what the pictures show, or another method",
            RuntimeWarning,
            stacklevel=3,
        )
    return Critic(
        _scaled(matrix).float().cpu(),
        method=method,
        pairs=count,
        model_type=model_type,
        strength=strength,
        fitted=fitted.score(matrix),
        held_out=score,
    )


def _observed(observer, pairs, processor, model):
    """The Observation of each pair; its number is in what it raises."""
    from .prompts import model_inputs

    for number, pair in enumerate(pairs):
        try:
            yield observer.observe(model_inputs(pair, processor, model))
        except _OF_A_PAIR as error:
            # Not type(error): some kinds of ValueError take other arguments.
            kind = next(kind for kind in _OF_A_PAIR if isinstance(error, kind))
            raise kind(f"pairs[{number}]: {error}") from error


def _best(fitted, held_out, strengths) -> tuple[float, torch.Tensor]:
    """The strength of the best held-out score, the first of equal ones, and its matrix."""
    best = None
    for strength in map(float, strengths):
        matrix = fitted.fit(strength)
        score = held_out.score(matrix)
        if best is None or score > best[0]:
            best = score, strength, matrix
    return best[1:]


def _scaled(matrix: torch.Tensor) -> torch.Tensor:
    """The scale of A does not count; this one makes A^T t of a typical unit t a unit vector."""
    size = matrix.norm() / len(matrix) ** 0.5
    if not (size > 0 and size.isfinite()):
        raise ValueError("pairs: their rows do not depend on each other; nothing can be fitted")
    return matrix / size


def _layers(model, kind, layers) -> tuple[int, ...]:
    """The numbers of the layers to look at, ascending; none for methods that do not look."""
    if not kind.looks_at_attention:
        if layers is not None:
            raise ValueError(f"layers: got {layers!r}, allowed only with method 'attention'")
        return ()
    if layers is None:
        depth = model.config.get_text_config().num_hidden_layers
        return tuple(range(-(-depth // 3)))
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise TypeError(f"layers: got {layers!r}, allowed are numbers of decoder layers")
    for number in layers:
        if not _checks.is_integer(number):
            raise TypeError(f"layers: got {number!r}, allowed are numbers of decoder layers")
    return tuple(sorted(set(map(int, layers))))


def _check_method(method) -> None:
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, allowed are {', '.join(METHODS)}")


def _check_strengths(strengths) -> None:
    if isinstance(strengths, str) or not isinstance(strengths, Sequence) or not strengths:
        raise TypeError(f"strengths: got {strengths!r}, allowed is a sequence of numbers > 0")
    for value in strengths:
        if not _checks.is_number(value):
            raise TypeError(f"strengths: got {value!r}, allowed are numbers > 0")
        if not 0 < value < float("inf"):
            raise ValueError(f"strengths: got {value}, allowed are finite numbers > 0")
