"""attach: prunes visual tokens before the language model, with forward hooks only.

What happens in one forward of an attached model:
1. A hook before the vision-and-language module notes the call: ids, images, given positions or
   none.
2. The module encodes the images, merges them into the text and calls its language model.
3. A hook before the language model sees the merged embeddings. If the call has images, it selects,
   gathers embeddings and positions, and hands over a mask of the pruned width. If the cache was
   pruned earlier, it cuts the mask to the cache's columns. Otherwise it changes nothing.
4. A hook after the language model notes on the cache which columns it holds (columns.CacheState).
"""

import threading
from dataclasses import replace

import torch

from .. import defaults
from ..critic.attached import critic_for
from . import compiled, masks, planes, saved
from .call import KINDS, Call, named
from .choose import Options, choose
from .columns import CacheState, kept_columns, next_positions, renumber
from .layout import Scene
from .models import Parts, find_parts
from .query import Query
from .refusals import check_flash, check_unknown
from .repeated import RepeatedPrompt
from .report import ImageReport, Report
from .step import (
    Step,
    cache_length,
    given_cache,
    holds_padding,
    holds_pruned_columns,
    is_made,
    physical_masks,
    repeated_columns,
    write_state,
)
from .visuals import find_visuals, placeholders

# Of columns that a loss ignores, to all of transformers.
_NO_LABEL = -100

# Arguments of the vision-and-language module with a column per new token on their last axis.
_CUT = ("input_ids", "position_ids", "mm_token_type_ids", "token_type_ids", "cache_position")


def attach(
    model,
    keep,
    *,
    redundancy: float | None = None,
    temperature: float = defaults.TEMPERATURE,
    estimator: str = defaults.ESTIMATOR,
    query="question",
    positions: str = "original",
    budget: str = "per-image",
    video_budget: str = "per-frame",
    min_tokens: int = 0,
    tokenizer=None,
    explain: bool = False,
    selector=None,
    critic=None,
    coverage: float | None = None,
) -> "Pruner":
    """Prunes visual tokens in every forward and generate of the model until detach().

    A pruned prefill returns hidden states and logits of the kept columns only: the last one is what
    generate reads, the ones before no longer line up with input_ids. An integer logits_to_keep
    counts from the end and works; labels and a tensor of logits_to_keep are refused.

    What wraps a model is seen through: PEFT's classes with adapters within the layers (LoRA and the
    like), torch.compile, DistributedDataParallel. The hooks are on the model within.

    The hooks are torch's, which model(...) and generate run and model.forward(...) skips: call the
    model itself. In model.forward(...) the modules within are pruned still, but labels and
    logits_to_keep go unchecked: a loss there fails, or is taken at columns that pruning moved.

    torch.save, pickle and copy give the plain model, without the pruner; this one keeps it.
    torch.export and torch.jit.trace refuse it: detach() first.

    A compiled model works, whether it was compiled before or after: attach and detach have
    everything that torch.compile made in this process made again at its next call.

    A cache knows that it is pruned: later steps and turns on it go on correctly while the pruner is
    attached, and new images in them are pruned too. Chunked prefill is refused. Assisted decoding
    works with transformers 5.18 and newer; what is guessed is no part of the question.

    Args:
        model: a transformers vision-language model, in eval mode, or what wraps it: one that
            mi_pruner_cuda.huggingface.MODELS knows, or another of the same structure, where each
            run of placeholders counts as an image.
        keep: a ratio in (0, 1], an exact count >= 1 or Mass(share), of whatever shares a budget.
        redundancy, temperature, estimator, coverage: as in mi_pruner_cuda.select, with the same
            defaults.
        query: "question" takes it from the prompt: its tokens without visual placeholders, padding
            and special tokens and, where the tokenizer has a chat template, without the template's
            own. In a conversation earlier turns count as well. "all" takes every text token;
            another text (needs tokenizer) or token ids replace the question. None selects without
            text, by redundancy (which must be > 0) and coverage: the kept rows depend on the image
            and nothing else, so that a prefix cache can keep them for every question.
        positions: "original" keeps every token's position, so that the numbers have gaps;
            "renumbered" closes the gaps.
        budget: "per-image" gives each image, all its crops together, a share of at least one token;
            "per-crop" gives it to each crop (tile, overview); "pooled" lets the images of one item
            compete for one share, which may leave an image with nothing.
        video_budget: "per-frame" gives each frame its own share; "per-video" lets the frames of a
            video compete for one share, of at least one token per frame.
        min_tokens: images (or pools) of at most that many tokens are kept whole.
        tokenizer: the model's tokenizer or processor.
        explain: whether the report says for which word of the question each row speaks.
        selector: None selects by mutual information; a function of (visual (N, D), text (M, D),
            keep) that returns a Selection replaces it, to compare other rules in the same place. It
            gets the text as the critic maps it.
        critic: for models whose visual rows do not point the way of the words' embeddings: a
            Critic (mi_pruner_cuda.calibrate), its matrix or its file; "auto" is the file
            mipruner_critic.safetensors in the folder that the model was loaded from, if it is
            there. None, the default, compares by plain cosines: a file in a folder does not change
            what is kept unless it is asked for. The report names the critic.

    Returns:
        A Pruner, for a with statement or until its detach().

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        RuntimeError: the model already has a pruner.
    """
    redundancy, coverage = defaults.choice(keep, redundancy, coverage)
    options = Options(
        keep, redundancy, temperature, estimator, positions, budget, video_budget, min_tokens,
        text_free=query is None, explain=explain, selector=selector, coverage=coverage,
    )  # fmt: skip
    options.check()
    parts = find_parts(model)
    options = replace(options, critic=critic_for(critic, parts.model))
    compiled.check_unhooked(parts.model, parts.base, parts.language_model)
    return Pruner(parts, options, Query(parts, query, tokenizer))


class _Forward(threading.local):
    """What is known of the forward in progress, in each thread of its own.

    call: the vision-and-language module's.
    masks: of that call, (B, past) over the cache and (B, L).
    refused: why this forward must not be pruned.
    kept_logits: logits_to_keep, where it is a number; 0 is all.
    pending: to be noted on the cache after the language model.
    prompt: the latest one without a cache; outlives the forward.
    """

    call: Call | None = None
    masks: tuple[torch.Tensor, torch.Tensor] | None = None
    refused: str | None = None
    kept_logits: int = 0
    pending: CacheState | None = None
    prompt: RepeatedPrompt | None = None


class Pruner:
    """A model's pruner. report: what the latest prefill kept; detach(): restores the model."""

    def __init__(self, parts: Parts, options: Options, query: Query):
        self.report = Report()
        self.parts = parts
        self.options = options
        self._query = query
        self._now = _Forward()
        self._handles = []
        try:
            self._register()
            compiled.forget()
        except BaseException:
            self.detach()
            raise

    def __reduce__(self):
        raise TypeError(
            "pruner: it belongs to one model in one process and cannot be copied or pickled; "
            "copy pruner.report or the model, which comes without its pruner, and attach again"
        )

    def _register(self) -> None:
        parts = self.parts
        self._before(parts.base, self._note_call)
        self._after(parts.base, self._forget_call)
        if parts.model is not parts.base:
            self._before(parts.model, self._note_outputs)
            self._after(parts.model, self._forget_outputs)
        self._before(parts.language_model, self._prune)
        self._after(parts.language_model, self._note_cache, always=False)
        saved.leave_hooks_out(parts.model)

    def _before(self, module, hook) -> None:
        self._handles.append(
            module.register_forward_pre_hook(compiled.outside(hook, module), with_kwargs=True)
        )

    def _after(self, module, hook, always: bool = True) -> None:
        # always: a forward that raises must not leave its call noted.
        self._handles.append(
            module.register_forward_hook(compiled.outside(hook, module), always_call=always)
        )

    def detach(self) -> None:
        """Removes the hooks: the model is as before. May be called again.

        A cache that was filled while attached keeps its pruned columns; do not continue it without
        the pruner.
        """
        if self._handles:
            compiled.forget()
            saved.put_back(self.parts.model)
        while self._handles:
            self._handles.pop().remove()
        self._now = _Forward()

    def __enter__(self) -> "Pruner":
        return self

    def __exit__(self, *_) -> None:
        self.detach()

    def _note_outputs(self, model, args, kwargs):
        """Before the model with its head: arguments that need the logits of every column."""
        inputs = named(model, args, kwargs)
        self._forget_outputs()  # an interrupt (KeyboardInterrupt) runs no hook after the module
        labels, changed = inputs.get("labels"), None
        if labels is not None and bool((labels == _NO_LABEL).all()):
            # PaliGemma's processor returns these with every prompt; there is no loss to take.
            changed = (), inputs | {"labels": None}
        elif labels is not None:
            self._now.refused = (
                "labels: the loss would be taken at columns that pruning moves; detach() the pruner"
            )
        kept = inputs.get("logits_to_keep")
        if isinstance(kept, torch.Tensor):
            self._now.refused = (
                "logits_to_keep: got a tensor, allowed while pruning is an int (from the end)"
            )
        elif kept is not None:
            self._now.kept_logits = kept
        return changed

    def _forget_outputs(self, *_) -> None:
        self._now.refused, self._now.kept_logits = None, 0

    def _note_call(self, base, args, kwargs):
        """Before the vision-and-language module."""
        self._forget_call()  # see _note_outputs
        if base.training:
            raise RuntimeError("model: it is in training mode; call eval() or detach() the pruner")
        inputs = named(base, args, kwargs)
        ids = inputs.get("input_ids")
        past = cache_length(given_cache(inputs))
        if ids is None and inputs.get("inputs_embeds") is not None and past == 0:
            raise ValueError(
                "inputs_embeds: got a prompt without input_ids; pruning reads there which rows are "
                "visual and which are the question"
            )
        repeated = repeated_columns(inputs)
        for name in _CUT if repeated else ():
            if inputs.get(name) is not None:
                inputs[name] = inputs[name][..., repeated:]
        changed = repeated > 0
        numbers = inputs.get("cache_position")
        if numbers is not None and holds_pruned_columns(inputs):
            # generate of transformers 4 goes on in logical columns. A module that makes masks with
            # a window from them would put the window behind the cache's last column.
            count = torch.arange(len(numbers), dtype=torch.int64, device=numbers.device)
            inputs["cache_position"] = past + count
            changed = True
        self._now.call = call = Call(inputs.get("input_ids"), inputs)
        if call.input_ids is not None and self._concerns(call):
            self._now.masks = physical_masks(inputs, *call.input_ids.shape, call.input_ids.device)
            changed |= self._give_plain_mask(inputs)
        return ((), inputs) if changed else None

    def _concerns(self, call: Call) -> bool:
        """Whether there is something to prune or something pruned."""
        return holds_pruned_columns(call.inputs) or any(map(call.brings, KINDS))

    def _give_plain_mask(self, inputs: dict) -> bool:
        """Replaces a mask that is not (B, past + L) over physical columns by one that is.

        Whoever makes masks for attention from it, this module or its language model, then makes the
        right ones.

        Returns:
            Whether it was replaced.
        """
        given = inputs.get("attention_mask")
        if given is None and not holds_padding(inputs):
            return False
        whole = torch.cat(self._now.masks, dim=1)
        plain = isinstance(given, torch.Tensor) and given.shape == whole.shape
        if plain and torch.equal(given.bool().to(whole.device), whole):
            return False
        inputs["attention_mask"] = whole.long()
        return True

    def _forget_call(self, *_) -> None:
        self._now.call = self._now.masks = self._now.pending = None

    def _note_cache(self, module, args, output) -> None:
        """After the language model."""
        if self._now.pending is None:
            return
        parts = output if isinstance(output, tuple) else output.values()
        cache = next((part for part in parts if hasattr(part, "get_seq_length")), None)
        if cache is not None:
            write_state(cache, self._now.pending)
        self._now.pending = None

    def _prune(self, module, args, kwargs):
        """Before the language model."""
        inputs = named(module, args, kwargs)
        if inputs.get("inputs_embeds") is None:
            return None
        given = self._now.call is None or self._now.call.inputs.get("position_ids") is not None
        step = Step(inputs, given, self._now.masks)
        keep = self._select(step)
        if keep is not None and not bool(keep.all()):
            if self._now.refused is not None:
                raise ValueError(self._now.refused)
            check_unknown(inputs)
            changed = self._pruned_inputs(inputs, step, keep)
        elif step.state is not None:
            changed = step.continued_inputs()
        else:
            return None  # untouched, bit for bit
        inputs.update(changed)
        if inputs.get("cache_position") is not None:
            inputs["cache_position"] = None  # transformers 4 then derives it from the cache
        return (), inputs

    def _select(self, step: Step) -> torch.Tensor | None:
        """Bool (B, L), False for columns to drop; None where the call brings no images."""
        call = self._now.call
        if call is None or call.input_ids is None:
            return None
        if step.past > 0 and not call.vision_tensors():
            return None  # decoding; a generated placeholder is text
        if not any(bool(v.any()) for v in placeholders(call, self.parts).values()):
            if step.past == 0:
                self._now.prompt = None
                self.report = Report(
                    ImageReport(item, None, 0, 0, "no image in the prompt")
                    for item in range(call.input_ids.shape[0])
                )
            return None
        if step.past == 0 and self._now.prompt is not None and self._now.prompt.goes_on_in(call):
            # Without a cache each step repeats the prompt: what was generated since is no question.
            return self._now.prompt.extend(call)
        call.check_whole()
        scene = Scene(
            call, self.parts.model.config, self.parts.base, step.embeddings, step.positions
        )
        keep, self.report = choose(
            find_visuals(scene, self.parts),
            step.embeddings.detach(),
            call.input_ids,
            self._asked(step),
            self._query,
            self.parts.model.get_input_embeddings(),
            self.options,
        )
        self._now.prompt = RepeatedPrompt(call, keep) if step.past == 0 else None
        return keep

    def _guesses(self) -> int:
        """How many tokens at the end of a prefill are an assistant's guesses.

        generate asks for the last column's logits alone, and for one more per guess.
        """
        call = self._now.call
        generating = call is not None and call.is_of_generate()
        return max(0, self._now.kept_logits - 1) if generating else 0

    def _asked(self, step: Step) -> torch.Tensor:
        """Bool (B, L): tokens that may be a part of the question."""
        asked = step.real.clone()
        asked[:, step.length - self._guesses() :] = False
        return asked

    def _pruned_inputs(self, inputs: dict, step: Step, keep: torch.Tensor) -> dict:
        """The language model's new arguments for a call whose columns are pruned."""
        columns = kept_columns(keep, step.real)
        attended = columns.kept & columns.values(step.real)
        mask = torch.cat([step.cached_mask, attended], dim=1)
        given = step.caller_positions()
        shift = step.shift.to(given.device)
        positions = columns.values(given) - shift[:, None]
        if self.options.positions == "renumbered":
            gapped = next_positions(positions, attended)
            positions = renumber(positions, attended)
            shift = shift + gapped - next_positions(positions, attended)
        if positions.dim() == 3 and positions.shape[0] == 4:
            # The plane before (t, h, w) numbers tokens, only to tell packed sequences apart.
            length = positions.shape[-1]
            count = torch.arange(length, dtype=torch.int64, device=positions.device)
            positions[0] = step.past + count
        self._now.pending = CacheState(
            mask=mask,
            logical=step.logical + step.length,
            next_position=next_positions(given, step.real),
            shift=shift,
            padded=not bool(mask.all()),
            axes=3 if positions.dim() == 3 else 1,
            guessed=self._guesses(),
        )
        if not self._now.pending.padded:
            check_flash(self.parts.language_model.config, positions)
        embeddings = columns.rows(step.embeddings)
        return {
            "inputs_embeds": embeddings,
            "position_ids": positions,
            "attention_mask": self._attention_mask(inputs, step, columns, embeddings, mask),
            **planes.cut_planes(inputs, columns),
        }

    def _attention_mask(self, inputs: dict, step: Step, columns, embeddings, mask):
        """What the language model gets to mask the pruned columns; mask: bool (B, past + P)."""
        if not is_made(inputs.get("attention_mask")):
            # Explicit even if it is all ones: without a mask transformers 5 takes a gap between
            # positions for the border between packed sequences.
            return mask.long()
        return masks.remake(
            self.parts.base,
            self.parts.model.config,
            inputs,
            masks.token_types(self._now.call.inputs),
            torch.cat([step.cached_mask, step.real], dim=1),
            (embeddings, mask),
            columns,
        )
