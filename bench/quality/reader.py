"""Answers the questions of an exam with any choice of visual tokens, many times faster than one
call of generate each.

    reader = Reader("build/models/study-llava-1", exam)
    right = reader.answer(kept)          # bool (Q), for kept, int64 (Q, K)

It gives what attach and generate give (a test compares them): visual rows are computed once per
scene, each prompt is written down without the rows that are not kept, questions about the same rows
share a forward, and an answer counts when the model prefers each of its words, and then the end,
over every other word: exactly when greedy decoding would say it word for word.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
import vlm_llava
import vlm_qwen
from eval_vlm import prompt
from exam import Exam
from eyes import Eyes, View
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor
from vlm_prompt import EOS, IMAGE, PAD, questions_mask

from mi_pruner_cuda.positions import close_gaps

ARCHITECTURES = {"llava": vlm_llava, "qwen2_5_vl": vlm_qwen}
_TOKENS = 4000  # of one forward
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
        for groups in self._batches(self._groups(kept, rows), kept.shape[1]):
            firsts = [group[0] for group in groups]
            if rows is None:
                visual = self.rows[self.exam.scene_of[firsts][:, None], kept[firsts]]
            else:
                visual = rows[firsts]
            for question, said in self._answer(groups, kept[firsts], visual, positions):
                right[question] = said == self.asked[question].answer
        return right

    def _groups(self, kept: np.ndarray, rows: torch.Tensor | None) -> list[list[int]]:
        """Questions that one forward over their picture can answer: those about one scene of which
        the same rows are kept."""
        if rows is not None:
            return [[question] for question in range(len(self.asked))]
        groups: dict[tuple, list[int]] = {}
        for question, (scene, own) in enumerate(zip(self.exam.scene_of, kept, strict=True)):
            groups.setdefault((scene, own.tobytes()), []).append(question)
        return list(groups.values())

    def _batches(self, groups: list[list[int]], k: int) -> Iterator[list[list[int]]]:
        """Groups of about equal size together: less padding."""
        groups = sorted(groups, key=lambda group: (len(group), self._width(group)))
        batch: list[list[int]] = []
        for group in groups:
            if (len(batch) + 1) * (k + len(group) * self._width(group)) > _TOKENS and batch:
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _width(self, group: list[int]) -> int:
        """Tokens behind the picture of the longest question."""
        return max(len(self.asked[q].after) + len(self.asked[q].answer) - 1 for q in group)

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
        self, groups: list[list[int]], kept: np.ndarray, visual: torch.Tensor, positions: str
    ) -> Iterator[tuple[int, list[int]]]:
        """What the model prefers at each word of each answer, in one forward.

        A group is laid out as before, visual rows, question, question, ...: each question sees the
        picture and itself and stands directly behind the picture, as if it were alone.

        Args:
            groups: of questions; kept: int64 (groups, K); visual: float32 (groups, K, D).
        """
        n, k = self.rows.shape[1], kept.shape[1]
        before = self.asked[groups[0][0]].before
        begin, step = len(before) + k, max(map(self._width, groups))
        width = begin + step * max(map(len, groups))
        tokens = torch.full((len(groups), width), PAD)
        index = torch.zeros(len(groups), width, dtype=torch.long)  # places in the unpruned prompt
        tokens[:, : len(before)] = torch.tensor(before)
        index[:, : len(before)] = torch.arange(len(before))
        index[:, len(before) : begin] = len(before) + torch.from_numpy(kept)
        starts = {}
        for item, group in enumerate(groups):
            for place, question in enumerate(group):
                own, at = self.asked[question], begin + place * step
                behind = own.after + own.answer[:-1]
                tokens[item, at : at + len(behind)] = torch.tensor(behind)
                starts[question] = item, at + len(own.after) - 1
        index[:, begin:] = len(before) + n + torch.arange(width - begin) % step
        mask = questions_mask(torch.arange(width), begin, step)
        rows = self._embed[tokens]
        rows[:, len(before) : begin] = visual
        hidden = self.model.model.language_model(
            inputs_embeds=rows,
            attention_mask=mask.expand(len(groups), -1, -1, -1),
            position_ids=self._positions(index, positions),
            use_cache=False,
        ).last_hidden_state
        for question, (item, start) in starts.items():
            end = start + len(self.asked[question].answer)
            yield question, self.model.lm_head(hidden[item, start:end]).argmax(-1).tolist()

    def _positions(self, index: torch.Tensor, kind: str) -> torch.Tensor:
        """int64 (B, L), or (3, B, L) on three axes."""
        axes = self.architecture.positions(torch.arange(int(index.max()) + 1))[..., 0, :]
        places = axes[..., index]
        if kind == "renumbered":
            for item in range(len(index)):
                own = places[..., item, :]
                places[..., item, :] = close_gaps(own, own.min())
        return places
