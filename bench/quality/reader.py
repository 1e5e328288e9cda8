"""Answers the questions of an exam with any choice of visual tokens, many times faster than one
call of generate each.

    reader = Reader("build/models/study-llava-1", exam)
    right = reader.answer(kept)          # bool (Q), for kept, int64 (Q, K)

It gives what attach and generate give (a test compares them): visual rows are computed once per
scene, each prompt is written down without the rows that are not kept, and an answer counts when the
model prefers each of its words, and then the end, over every other word: exactly when greedy
decoding would say it word for word.
"""

import dataclasses
import pathlib

import numpy as np
import torch
import vlm_llava
import vlm_qwen
from eval_vlm import prompt
from exam import Exam
from eyes import Eyes, View
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor
from vlm_prompt import EOS, IMAGE

from mi_pruner_cuda.positions import close_gaps

ARCHITECTURES = {"llava": vlm_llava, "qwen2_5_vl": vlm_qwen}
_QUESTIONS = 48  # of one forward
_SCENES = 16


@dataclasses.dataclass(frozen=True)
class Asked:
    """One question as token ids: before and after the visual rows, its own words, the answer."""

    before: list[int]
    after: list[int]
    words: list[int]
    answer: list[int]


class Reader:
    """One model in front of one exam.

    rows: float32 (S, N, D), what the projector gives for each scene.
    asked: the questions.
    """

    def __init__(self, folder: pathlib.Path | str, exam: Exam, quiet: bool = False):
        self.exam = exam
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.architecture = ARCHITECTURES[self.model.config.model_type]
        self._quiet = quiet
        self.asked = [self._write(question) for question in exam.questions]
        self.rows = self._see()
        self._embed = self.model.get_input_embeddings().weight.detach()

    def text(self, question: int, query: str = "question") -> torch.Tensor:
        """(M, D): the embeddings that a selection sees; query: "question" or "all"."""
        own = self.asked[question]
        return self._embed[own.words if query == "question" else own.before + own.after]

    @torch.inference_mode()
    def answer(
        self,
        kept: np.ndarray,
        positions: str = "original",
        rows: torch.Tensor | None = None,
    ) -> np.ndarray:
        """bool (Q): whether each answer is right, word for word.

        Args:
            kept: int64 (Q, K), ascending.
            positions: "original" or "renumbered".
            rows: float32 (Q, K, D), for a rule that changes the rows that it keeps.
        """
        right = np.zeros(len(self.asked), bool)
        # Questions of equal length together: less padding.
        order = np.argsort([len(own.after) + len(own.answer) for own in self.asked], kind="stable")
        for first in range(0, len(order), _QUESTIONS):
            part = order[first : first + _QUESTIONS]
            scene = self.exam.scene_of[part][:, None]
            visual = self.rows[scene, kept[part]] if rows is None else rows[part]
            right[part] = self._answer(part, kept[part], visual, positions)
        return right

    @torch.inference_mode()
    def look(self, text_layer: int = 1) -> tuple[list[View], torch.Tensor]:
        """What the model itself computes, unpruned: a View per scene, and the text's attention of
        an early layer per question, float32 (Q, N)."""
        views = [None] * len(self.exam.scenes)
        attention = [None] * len(self.asked)
        with Eyes(self.model, text_layer=text_layer) as eyes:
            for question in tqdm(range(len(self.asked)), desc="attention", disable=self._quiet):
                scene = self.exam.scene_of[question]
                self.model(**self._inputs(question), use_cache=False)
                views[scene] = eyes.views[0]
                attention[question] = eyes.views[0].text_attention
        return views, torch.stack(attention)

    def _inputs(self, question: int):
        scene = self.exam.scenes[self.exam.scene_of[question]]
        text = prompt(self.processor, self.exam.questions[question].text)
        return self.processor(images=[scene.image], text=[text], return_tensors="pt")

    def _write(self, question) -> Asked:
        tokenizer = self.processor.tokenizer
        ids = tokenizer(prompt(self.processor, question.text), add_special_tokens=False).input_ids
        place = ids.index(IMAGE)

        def write(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False).input_ids

        return Asked(
            ids[:place], ids[place + 1 :], write(question.text), [*write(question.answer), EOS]
        )

    @torch.inference_mode()
    def _see(self) -> torch.Tensor:
        found = []
        starts = range(0, len(self.exam.scenes), _SCENES)
        for first in tqdm(starts, desc="scenes", leave=False, disable=self._quiet):
            images = [scene.image for scene in self.exam.scenes[first : first + _SCENES]]
            pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            found.append(self._rows(pixels, len(images)))
        return torch.cat(found)

    def _rows(self, pixels: torch.Tensor, count: int) -> torch.Tensor:
        if self.architecture is vlm_llava:
            return vlm_llava.visual_rows(self.model, pixels)
        side = int((len(pixels) // count) ** 0.5)
        grid = torch.tensor([[1, side, side]]).expand(count, -1)
        found = self.model.model.visual(pixels, grid_thw=grid).pooler_output
        return found.unflatten(0, (count, -1))

    def _answer(
        self, part: np.ndarray, kept: np.ndarray, visual: torch.Tensor, positions: str
    ) -> np.ndarray:
        """The questions of one forward."""
        asked = [self.asked[question] for question in part]
        n, k = self.rows.shape[1], kept.shape[1]
        width = max(len(own.before) + k + len(own.after) + len(own.answer) for own in asked) - 1
        rows = self._embed.new_zeros(len(part), width, self._embed.shape[1])
        mask = torch.zeros(len(part), width, dtype=torch.long)
        index = torch.zeros(len(part), width, dtype=torch.long)  # places in the unpruned prompt
        starts = []
        for place, own in enumerate(asked):
            before, behind = len(own.before), own.after + own.answer[:-1]
            end = before + k + len(behind)
            rows[place, :before] = self._embed[own.before]
            rows[place, before : before + k] = visual[place]
            rows[place, before + k : end] = self._embed[behind]
            mask[place, :end] = 1
            places = torch.from_numpy(kept[place])
            later = before + n + torch.arange(len(behind))
            index[place, :end] = torch.cat([torch.arange(before), before + places, later])
            starts.append(before + k + len(own.after) - 1)
        hidden = self.model.model.language_model(
            inputs_embeds=rows,
            attention_mask=mask,
            position_ids=self._positions(index, mask, positions),
            use_cache=False,
        ).last_hidden_state
        right = []
        for place, (own, start) in enumerate(zip(asked, starts, strict=True)):
            said = self.model.lm_head(hidden[place, start : start + len(own.answer)]).argmax(-1)
            right.append(said.tolist() == own.answer)
        return np.array(right)

    def _positions(self, index: torch.Tensor, mask: torch.Tensor, kind: str) -> torch.Tensor:
        """int64 (B, L), or (3, B, L) on three axes."""
        axes = self.architecture.positions(torch.arange(int(index.max()) + 1))[..., 0, :]
        places = axes[..., index]
        if kind == "renumbered":
            for item, real in enumerate(mask.bool()):
                used = places[..., item, real]
                places[..., item, real] = close_gaps(used, used.min())
        return places
