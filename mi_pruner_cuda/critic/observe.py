"""What a model makes of one pair: visual rows and text rows as attach finds them, and attention's
logits between them.

1. A hook before the vision-and-language module notes the call.
2. A hook before its language model finds images and question in the merged embeddings.
3. Where logits are wanted, hooks on the projections of some layers keep queries and keys.
4. The forward is broken off once all of that is known: the rest of it would be for nothing.
"""

import contextlib
from dataclasses import dataclass, replace

import torch

from ..huggingface import compiled
from ..huggingface.call import Call, named
from ..huggingface.layout import Scene
from ..huggingface.models import find_parts
from ..huggingface.query import Query
from ..huggingface.step import Step, physical_masks
from ..huggingface.visuals import find_visuals


@dataclass(frozen=True)
class Observation:
    """One pair. Rows are float32 unit vectors; a row that is not finite is left out.

    visual: (N, D), all images of the prompt together, without learned row breaks.
    text: (M, D), the token embeddings of the text.
    logits: float32 (M, N), from text token to visual token, the mean over heads and layers, before
        rotary positions and the softmax; None where nothing asked for it.
    """

    visual: torch.Tensor
    text: torch.Tensor
    logits: torch.Tensor | None = None


class _Seen(Exception):
    """Leaves the forward."""


class Observer:
    """Hooks on a model while it is in a with statement. observe: one pair."""

    def __init__(self, model, tokenizer, layers: tuple[int, ...] = ()):
        """layers: numbers of the language model's layers whose logits are wanted.

        Raises:
            TypeError, ValueError: a model without the parts that this needs.
            RuntimeError: the model is in training mode, or has a pruner.
        """
        self._parts = find_parts(model)
        if model.training:
            raise RuntimeError("model: it is in training mode; call eval() first")
        compiled.check_unhooked(self._parts.base, self._parts.language_model)
        self._query = Query(self._parts, "question", tokenizer)
        self._layers = [_Layer(number, self._parts.language_model) for number in layers]
        self._handles: list = []
        self._call = self._found = None

    def __enter__(self) -> "Observer":
        self._before(self._parts.base, self._note_call)
        self._before(self._parts.language_model, self._look)
        for layer in self._layers:
            for name, module in layer.projections.items():
                self._after(module, layer.keeper(name))
        if self._layers:
            self._after(self._layers[-1].attention, self._leave)
        compiled.forget()
        return self

    def __exit__(self, *_) -> None:
        while self._handles:
            self._handles.pop().remove()
        compiled.forget()
        self._call = self._found = None

    @torch.no_grad()
    def observe(self, inputs: dict) -> Observation:
        """Runs the model on the inputs of one prompt, as far as needed.

        Raises:
            ValueError: there is no image, no text, or more than one prompt.
        """
        self._found = None
        with contextlib.suppress(_Seen):
            self._parts.model(**inputs, use_cache=False)
        if self._found is None:
            raise RuntimeError("model: its language model was not called with embeddings")
        found, columns, asked = self._found
        logits = None
        if self._layers:
            # Layers may lie on devices of their own.
            made = [layer.logits(asked, columns).to(found.visual) for layer in self._layers]
            logits = torch.stack(made).mean(0)
        return _finite(replace(found, logits=logits))

    def _before(self, module, hook) -> None:
        hook = compiled.outside(hook, module)
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _after(self, module, hook) -> None:
        self._handles.append(module.register_forward_hook(compiled.outside(hook, module)))

    def _note_call(self, base, args, kwargs) -> None:
        inputs = named(base, args, kwargs)
        self._call = Call(inputs.get("input_ids"), inputs)

    def _look(self, module, args, kwargs) -> None:
        """Before the language model."""
        call, step = self._call, Step(kwargs, caller_gave_positions=False)
        if call.input_ids is None or call.input_ids.shape[0] != 1:
            raise ValueError("input_ids: missing, or not one prompt at a time, (1, L)")
        ids = call.input_ids[0]
        scene = Scene(
            call, self._parts.model.config, self._parts.base, step.embeddings, step.positions
        )
        visuals = find_visuals(scene, self._parts)
        if not visuals:
            raise ValueError("there is no image in the prompt")
        columns = torch.cat([_content(visual) for visual in visuals])
        real = physical_masks(call.inputs, *call.input_ids.shape, ids.device)[1][0]
        spans = [(int(visual.columns[0]), int(visual.columns[-1])) for visual in visuals]
        question = self._query.ids(ids, real, spans)
        embed = self._parts.model.get_input_embeddings()
        known = torch.tensor(question, dtype=torch.int64, device=ids.device)
        text = embed(known).to(step.embeddings)
        rows = step.embeddings[0, columns.to(step.embeddings.device)]
        found = Observation(_unit(rows), _unit(text))
        self._found = found, columns, _places(ids.tolist(), question)
        if not self._layers:
            raise _Seen

    def _leave(self, module, args, output) -> None:
        raise _Seen


class _Layer:
    """The attention of one decoder layer, and the queries and keys that it made last."""

    def __init__(self, number: int, language_model):
        stack = getattr(language_model, "layers", None)
        if stack is None or not 0 <= number < len(stack):
            depth = 0 if stack is None else len(stack)
            raise ValueError(f"layers: got {number}, allowed are 0 to {depth - 1}")
        self.attention = getattr(stack[number], "self_attn", None)
        names = ("q_proj", "k_proj")
        self.projections = {name: getattr(self.attention, name, None) for name in names}
        if None in self.projections.values():
            raise ValueError(
                f"method: got 'attention', but layer {number} of {type(language_model).__name__} "
                "has no self_attn.q_proj and k_proj; allowed there are the other methods"
            )
        self._made: dict[str, torch.Tensor] = {}

    def keeper(self, name: str):
        def keep(module, args, output) -> None:
            self._made[name] = output

        return keep

    def logits(self, asked: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """float32 (M, N): the mean over heads of q_j . k_i, scaled as the layer scales it.

        Args:
            asked, columns: int64, the columns of text and visual tokens.
        """
        width = self.attention.head_dim
        queries = self._heads("q_proj", asked, width)
        keys = self._heads("k_proj", columns, width)
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
        scale = getattr(self.attention, "scaling", width**-0.5)
        # The sum over heads of their products is the product of the heads side by side.
        products = queries.flatten(1) @ keys.flatten(1).T
        return (products * (scale / queries.shape[1])).float()

    def _heads(self, name: str, columns: torch.Tensor, width: int) -> torch.Tensor:
        """float64 (n, heads, width), after the norm that some layers have there."""
        made = self._made[name]
        heads = made[0, columns.to(made.device)].unflatten(-1, (-1, width))
        norm = getattr(self.attention, name.replace("proj", "norm"), None)
        return (heads if norm is None else norm(heads)).double()


def _content(visual) -> torch.Tensor:
    """int64: the columns of an image that are not learned row breaks."""
    kept = torch.ones(visual.shape.tokens, dtype=torch.bool, device="cpu")
    kept[list(visual.shape.breaks)] = False
    return visual.columns[kept.to(visual.columns.device)]


def _places(row: list[int], question: list[int]) -> torch.Tensor:
    """int64: columns that hold the question's ids in order, as far back in the prompt as it goes.

    A word of the template before may be a word of the question too.
    """
    columns, column = [], len(row)
    for token in reversed(question):
        column -= 1
        while row[column] != token:
            column -= 1
        columns.append(column)
    return torch.tensor(columns[::-1], dtype=torch.int64, device="cpu")


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def _finite(seen: Observation) -> Observation:
    rows, words = seen.visual.isfinite().all(1), seen.text.isfinite().all(1)
    if not bool(rows.any()) or not bool(words.any()):
        raise ValueError("all its visual rows, or all its text rows, hold NaN or Inf")
    if seen.logits is None:
        return Observation(seen.visual[rows], seen.text[words])
    return Observation(seen.visual[rows], seen.text[words], seen.logits[words][:, rows])
