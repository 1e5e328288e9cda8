"""The words of the trained models, and how several questions share one forward over a picture.

A prompt is: BEFORE (visual rows) AFTER question assistant : answer </s>. BEFORE and AFTER are the
architecture's own. Words keep their ids in every world and architecture: the study's vocabulary
extends the demo's, and an architecture appends its marks.
"""

from __future__ import annotations

import dataclasses

import torch
import world as study
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mi_pruner_cuda.demo import scenes

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNK, IMAGE = range(len(SPECIAL))
_FRAME = (*SPECIAL, "user", "assistant", ":")
VOCABULARIES = {"demo": scenes.VOCABULARY, "study": study.VOCABULARY}
WORD_ID = {word: index for index, word in enumerate((*_FRAME, *study.VOCABULARY))}

# What a patch can be labelled with; the last entry of a list is "background".
DIGIT_WORDS = (*(str(digit) for digit in range(10)), "background")
COLOUR_WORDS = (*scenes.COLOUR_NAMES, "background")
SIDE_WORDS = ("left", "right", "top", "bottom")

SUFFIX = ("assistant", ":")
FRAME_IDS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<s>' if loop.first else '' }}{{ message['role'] }} :"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ ' PICTURE' if part['type'] == 'image' else ' ' + part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}{{ 'assistant :' if add_generation_prompt else '' }}"
)
PATCHES = scenes.GRID**2
BLOCK = 12  # positions of one question with its answer
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def words_of(world: str, marks: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A model's vocabulary in the order of its ids: the world's words, then the marks."""
    return (*_FRAME, *VOCABULARIES[world], *marks)


def chat_template(picture: str) -> str:
    """The template with what a picture is written as."""
    return _CHAT_TEMPLATE.replace("PICTURE", picture)


def build_tokenizer(words: tuple[str, ...], **special) -> PreTrainedTokenizerFast:
    """One id a word; ``special`` names the special tokens beyond the common ones."""
    ids = {word: index for index, word in enumerate(words)}
    splitter = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    splitter.normalizer = normalizers.Lowercase()
    splitter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # splits off every punctuation mark
    return PreTrainedTokenizerFast(
        tokenizer_object=splitter,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


@dataclasses.dataclass
class Shared:
    """Several questions that share one forward over the same visual rows.

    L = begin + Q * BLOCK positions.
    """

    before: torch.Tensor  # ids before the visual rows
    after: torch.Tensor  # ids between them and the question
    rows: slice  # positions of the visual rows
    begin: int  # position of the first question
    mask: torch.Tensor  # (1, 1, L, L), additive
    position: torch.Tensor  # (1, L), or (3, 1, L): time, height, width

    def only(self, kept: torch.Tensor) -> Shared:
        """The same with these visual rows alone, int64 (K), at their own positions."""
        first, last = self.rows.start, self.rows.stop
        others = torch.arange(self.position.shape[-1], device=kept.device)
        columns = torch.cat([others[:first], first + kept, others[last:]])
        dropped = last - first - len(kept)
        return dataclasses.replace(
            self,
            rows=slice(first, last - dropped),
            begin=self.begin - dropped,
            mask=self.mask[..., columns, :][..., columns],
            position=self.position[..., columns],
        )


def share_picture(architecture, words: tuple[str, ...], questions: int, device: str) -> Shared:
    """Each question sees the picture's part and itself, causally, and stands directly behind the
    picture, as if it were alone."""
    ids = [
        torch.tensor([words.index(word) for word in part], dtype=torch.long, device=device)
        for part in (architecture.BEFORE, architecture.AFTER)
    ]
    rows = slice(len(ids[0]), len(ids[0]) + PATCHES)
    begin = rows.stop + len(ids[1])
    index = torch.arange(begin + questions * BLOCK, device=device)
    alone = torch.where(index < begin, index, begin + (index - begin) % BLOCK)
    mask = questions_mask(index, begin, BLOCK)
    return Shared(*ids, rows, begin, mask, architecture.positions(alone))


def questions_mask(index: torch.Tensor, begin: int, block: int) -> torch.Tensor:
    """(1, 1, L, L), additive and causal: all see what is before ``begin``, and their own block.

    Args:
        index: 0 to L - 1.
        begin: where the first question stands; block: positions of each.
    """
    number = torch.where(index < begin, 0, 1 + (index - begin).div(block, rounding_mode="floor"))
    visible = (number[None] == 0) | (number[None] == number[:, None])
    visible &= index[:, None] >= index[None]
    mask = torch.zeros(visible.shape, device=index.device)
    return mask.masked_fill(~visible, torch.finfo().min)[None, None]
