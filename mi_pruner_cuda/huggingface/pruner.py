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
from collections import deque
from dataclasses import replace

import torch

from .. import defaults
from ..critic.attached import critic_for
from . import compiled, masks, planes, saved
from .call import KINDS, Call, named
from .choose import Options, choose
from .columns import CacheState, following_positions, kept_columns, next_positions, renumber
from .layout import Scene
from .models import Parts, find_parts
from .notes import CacheNotes, state_of
from .query import Query
from .refusals import check_flash, check_unknown
from .repeated import IdRows, RepeatedPrompts
from .report import ImageReport, Report
from .reporting import Reporting
from .step import (
    Step,
    cache_length,
    given_cache,
    holds_padding,
    holds_pruned_columns,
    is_made,
    physical_masks,
    repeated_columns,
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

    torch.save, pickle and copy.deepcopy give the plain model, without the pruner; this one keeps
    it. copy.copy shares the modules, and their pruner.
    torch.export and torch.jit.trace refuse it: detach() first.

    A compiled model works, whether it was compiled before or after: attach and detach have
    everything that torch.compile made in this process made again at its next call.

    A cache knows that it is pruned: later steps and turns on it go on correctly while the pruner is
    attached, and new images in them are pruned too. Its rows may be reordered, selected, repeated,
    copied, pickled and built again from their tensors: each is known by its keys, among those of
    this pruner's latest 256 prefills where the cache is a new object. A pruned cache whose keys are
    changed (rounded, quantised, dropped) is refused. What cannot be seen is such a change in a new
    cache object, or rows that are padded and joined with others there: they count as whole.

    Without a cache every step repeats the prompt. A forward belongs to a prompt in progress where
    each of its rows, or each without its last token, was a row of that prompt before, with the same
    pixels. Outside of generate, a question that is one word longer than one before it, on the same
    picture, is therefore taken for its next step. Prompts may take turns, in any thread.

    Chunked prefill is refused. Assisted decoding works with transformers 5.18 and newer; what is
    guessed is no part of the question.

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
    pending: to be noted on the cache after the language model, with what was kept.
    kept: what the call's images keep.
    cache: the language model's, given or None.
    """

    call: Call | None = None
    masks: tuple[torch.Tensor, torch.Tensor] | None = None
    refused: str | None = None
    kept_logits: int = 0
    pending: tuple[CacheState, Report] | None = None
    kept: Report | None = None
    cache: object = None


class Pruner:
    """A model's pruner; detach() restores the model.

    report: what the latest prefill kept. generate's is the one of the prompt that it was given, or
        of the cache that it goes on with, whatever else the model was called for meanwhile.
    other_reports: what the prefills of other prompts kept while that generate was under way (a
        logits processor's, a guidance's or a verifier's), in their order; of the latest 256.
    """

    def __init__(self, parts: Parts, options: Options, query: Query):
        self._reporting = Reporting()
        self.parts = parts
        self.options = options
        self._query = query
        self._now = _Forward()
        self._notes = CacheNotes()
        self._prompts = RepeatedPrompts()
        self._handles = []
        try:
            self._register()
            compiled.forget()
        except BaseException:
            self.detach()
            raise

    @property
    def report(self) -> Report:
        """See the class."""
        return self._reporting.report

    @property
    def other_reports(self) -> deque[Report]:
        """See the class."""
        return self._reporting.others

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
        self._prompts = RepeatedPrompts()

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
        kept = self._notes.follow(given_cache(inputs), past)
        self._reporting.begin_forward(self.parts.model, ids if past == 0 else None, kept)
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
        given = self._positions_of_a_later_turn(call, past)
        if given is None:
            return ((), inputs) if changed else None
        return (), inputs | {"position_ids": given}

    def _positions_of_a_later_turn(self, call: Call, past: int) -> torch.Tensor | None:
        """Where text on a pruned cache goes on, for classes that remember the latest prompt.

        Qwen2-VL and its kin keep how far positions lie from columns on the module (rope_deltas):
        the latest prompt's, whichever cache comes next. Their own numbers can then be wrong, or not
        fit the batch. The language model's hook replaces them in any case.
        """
        state = state_of(given_cache(call.inputs))
        numbered = call.input_ids is None or call.inputs.get("position_ids") is not None
        if state is None or state.axes == 1 or numbered or any(map(call.brings, KINDS)):
            return None
        return following_positions(state, past, call.input_ids.shape[1])

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
        now = self._now
        now.call = now.masks = now.pending = now.kept = now.cache = None

    def _note_cache(self, module, args, output) -> None:
        """After the language model."""
        now = self._now
        parts = output if isinstance(output, tuple) else output.values()
        cache = next((part for part in parts if hasattr(part, "get_seq_length")), now.cache)
        if cache is not None and now.pending is not None:
            self._notes.write(cache, *now.pending)
        elif cache is not None:
            self._notes.mark(cache)
        now.pending = now.cache = None

    def _prune(self, module, args, kwargs):
        """Before the language model."""
        inputs = named(module, args, kwargs)
        cache = given_cache(inputs)
        self._now.cache = cache
        if self._now.call is None:  # called alone; else the hook before has followed the cache
            self._notes.follow(cache, cache_length(cache))
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
                self._note_text(call)
            return None
        call.check_whole()
        if step.past > 0:
            return self._choose(call, step, step.length)
        rows = IdRows(call.input_ids)
        keep = None
        if not self._reporting.begins_generate:
            keep = self._prompts.continued(call, rows, step.real)
        if keep is None:
            length = self._reporting.prompt_length(rows.ids)
            keep = self._choose(call, step, length)
            if given_cache(call.inputs) is None:
                self._prompts.add(call, rows, step.real, keep[:, :length])
        return keep

    def _note_text(self, call: Call) -> None:
        """A prompt without images; uncached steps that repeat it are no prompts of their own."""
        rows = IdRows(call.input_ids)
        # Padding does not matter here: nothing is dropped.
        everything = torch.ones(rows.ids.shape, dtype=torch.bool, device="cpu")
        again = self._prompts.continued(call, rows, everything) is not None
        if again and not self._reporting.begins_generate:
            return
        items = range(call.input_ids.shape[0])
        self._reporting.tell(
            Report(ImageReport(i, None, 0, 0, "no image in the prompt") for i in items)
        )
        if given_cache(call.inputs) is None:
            self._prompts.add(call, rows, everything, everything)

    def _choose(self, call: Call, step: Step, length: int) -> torch.Tensor:
        """Bool (B, L), False for columns to drop; length: columns that may be a question."""
        scene = Scene(
            call, self.parts.model.config, self.parts.base, step.embeddings, step.positions
        )
        asked = self._asked(step)
        asked[:, length:] = False
        forward = dict(vars(self._now))
        with self._reporting.unmoved():
            keep, report = choose(
                find_visuals(scene, self.parts),
                step.embeddings.detach(),
                call.input_ids,
                asked,
                self._query,
                self.parts.model.get_input_embeddings(),
                self.options,
            )
        vars(self._now).update(forward)  # a selector of the user's may have called the model
        self._reporting.tell(report)
        self._now.kept = report
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
        state = CacheState(
            mask=mask,
            logical=step.logical + step.length,
            next_position=next_positions(given, step.real),
            shift=shift,
            padded=not bool(mask.all()),
            axes=3 if positions.dim() == 3 else 1,
            guessed=self._guesses(),
        )
        self._now.pending = state, self._now.kept
        if not state.padded:
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
