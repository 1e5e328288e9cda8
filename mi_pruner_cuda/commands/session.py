"""A model, its processor and one prompt: loads them, answers, and says how long that took."""

import contextlib
import importlib.util
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from tqdm import tqdm

from .. import attach
from ..huggingface.models import image_token_of
from ..huggingface.turn import user_turn
from .errors import UserError

# What transformers raises for a folder or an id that it cannot load.
_CANNOT_LOAD = (OSError, ValueError, KeyError, ImportError, SafetensorError)


@dataclass
class Answer:
    """What the model said.

    text: decoded, without special tokens.
    first_token: seconds from the call of generate until the first token is chosen: image encoder,
        selection and prefill.
    whole: seconds of the call of generate.
    selection: seconds of the selection within it; 0 without a pruner.
    report: the pruner's, empty without one.
    """

    text: str
    first_token: float
    whole: float
    selection: float = 0.0
    report: list = field(default_factory=list)


@contextlib.contextmanager
def quiet(threads: int | None = None):
    """No log lines and bars of transformers; with so many threads. Restored at the end."""
    log, before = transformers.utils.logging, torch.get_num_threads()
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
        torch.set_num_threads(before)


class Session:
    """One model with its processor, loaded from a folder or from the Hugging Face hub."""

    def __init__(self, name: str, dtype: str = "auto", device: str = "cpu"):
        """Loads; about what is missing it raises UserError, before any weights are read."""
        _check_folder(name)
        with _bar("loading", 3, "step") as bar:
            base = _adapted_model(name) or name
            config = _load(transformers.AutoConfig, base, "configuration")
            _check_config(name, config)
            bar.update()
            own = (Path(name).expanduser() / "processor_config.json").is_file()
            self.processor = _load(transformers.AutoProcessor, name if own else base, "processor")
            _check_processor(name, self.processor)
            bar.update()
            model = _load(
                transformers.AutoModelForImageTextToText, name, "model", config=config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            )  # fmt: skip
            self.model = model.to(device).eval()
            bar.update()

    def prompt(self, pictures: list, question: str):
        """The processor's inputs for one user turn: the pictures, then the question."""
        marker = getattr(self.processor, "image_token", None)
        if marker and marker in question:
            raise UserError(f"question: it contains {marker!r}, which stands for an image")
        tokenizer = self.processor.tokenizer
        ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        if set(ids) <= set(tokenizer.all_special_ids):  # among them the one for unknown words
            raise UserError(f"question: {question!r} has no word that the model knows")
        try:
            inputs = user_turn(pictures, question, self.processor)
        except ValueError as error:  # Qwen's for example refuse pictures that are too narrow
            raise UserError(f"image: the model's processor refuses it: {error}") from error
        return inputs.to(self.model.device, self.model.dtype)

    def answer(
        self, inputs, new_tokens: int, repeat: int, warm_up: bool, ways: list[dict | None]
    ) -> list[Answer]:
        """Answers greedily, in several ways.

        The ways take turns, so that whatever else the machine does falls on all of them.

        Args:
            inputs: what prompt returned.
            new_tokens: at most.
            repeat: calls to time of each way; an answer's times are their medians.
            warm_up: makes one call of each way before them that is not timed.
            ways: keyword arguments of attach; None leaves the model alone.

        Returns:
            One Answer per way.

        Raises:
            UserError: attach refuses the model or an argument.
        """
        rounds = []
        with _bar("answering", (repeat + warm_up) * len(ways) * new_tokens, "token") as bar:
            for _ in range(repeat + warm_up):
                rounds.append([self._answer_once(inputs, new_tokens, way, bar) for way in ways])
        return [_with_medians(calls) for calls in zip(*rounds[-repeat:], strict=True)]

    def _answer_once(self, inputs, new_tokens: int, way: dict | None, bar) -> Answer:
        with self._pruner(way) as pruner:
            return self._generate(inputs, new_tokens, pruner, bar)

    def _pruner(self, pruning: dict | None):
        if pruning is None:
            return contextlib.nullcontext()
        try:
            return attach(self.model, tokenizer=self.processor, **pruning)
        except (TypeError, ValueError) as error:
            raise UserError(error) from error

    @torch.inference_mode()
    def _generate(self, inputs, new_tokens: int, pruner, bar) -> Answer:
        clock = _Clock(self.model.device, bar)
        start = clock.now()
        output = self.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=new_tokens,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )  # fmt: skip
        whole = clock.now() - start
        said = output[:, inputs["input_ids"].shape[1] :]
        bar.update(new_tokens - said.shape[1])  # an early end counts as done
        report = [] if pruner is None else pruner.report
        return Answer(
            text=self.processor.batch_decode(said, skip_special_tokens=True)[0].strip(),
            first_token=clock.first - start,
            whole=whole,
            selection=sum(entry.seconds for entry in report),
            report=report,
        )


def _with_medians(calls: tuple[Answer, ...]) -> Answer:
    """The last of equal calls, with the times of the middle one."""
    names = ("first_token", "whole", "selection")
    medians = {name: statistics.median(getattr(call, name) for call in calls) for name in names}
    return replace(calls[-1], **medians)


class _Clock(transformers.StoppingCriteria):
    """Never stops anything: generate calls it once per token."""

    def __init__(self, device: torch.device, bar):
        self.first: float | None = None
        self._device = device
        self._bar = bar

    def now(self) -> float:
        """Seconds, once the device has done what it was asked."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def __call__(self, input_ids, scores, **_):
        if self.first is None:
            self.first = self.now()
        self._bar.update()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _bar(label: str, total: int, unit: str):
    """On terminals only (None): a log file would get every step of it."""
    return tqdm(total=total, desc=label, unit=unit, disable=None, leave=False, file=sys.stderr)


def _folder(name: str) -> Path:
    return Path(os.path.expanduser(name))  # a user that is unknown is left as written


def _adapted_model(name: str) -> str | None:
    """The folder or id of the model that an adapter of PEFT in this folder is for; None without
    one. transformers loads both where peft is installed.

    Raises:
        UserError: it is not installed, or the adapter names no model.
    """
    file = _folder(name) / "adapter_config.json"
    if not file.is_file():
        return None
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"model: {name} holds a PEFT adapter and needs peft: pip install peft")
    try:
        base = json.loads(file.read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"model: {file} does not say base_model_name_or_path") from error
    if not base:
        raise UserError(f"model: {file} does not say base_model_name_or_path")
    _check_folder(base)
    return base


def _check_folder(name: str) -> None:
    path = _folder(name)
    if path.is_file():
        raise UserError(f"model: {name} is a file, allowed is a folder or a Hugging Face id")
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise UserError(f"model: {name} has no config.json")
    elif name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise UserError(f"model: there is no folder {name}")


def _check_config(name: str, config) -> None:
    if getattr(config, "vision_config", None) is None:
        raise UserError(
            f"model: {name} (model_type {config.model_type!r}) has no vision_config: there are no "
            "visual tokens to prune"
        )
    if image_token_of(config) is None:
        raise UserError(
            f"model: {name} (model_type {config.model_type!r}) has no image_token_id: it does not "
            "put an image's rows among those of the text"
        )


def _check_processor(name: str, processor) -> None:
    # AutoProcessor falls back to a tokenizer or an image processor where there is nothing else.
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise UserError(f"model: {name} has no processor for text and images")
    if not getattr(processor, "chat_template", None):
        raise UserError(f"model: the processor of {name} has no chat template")


def _load(kind, name: str, what: str, **options):
    try:
        return kind.from_pretrained(_folder(name) if _folder(name).is_dir() else name, **options)
    except _CANNOT_LOAD as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"model: cannot load the {what} of {name}: {lines[0]}") from error
