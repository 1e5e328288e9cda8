"""What a processor writes into a prompt beside marks: times of frames, names of tiles, line breaks.

None of it is part of a question, and it differs from the template's own words in that it comes with
pictures and films, not with turns.
"""

import re
from collections.abc import Sequence
from itertools import accumulate

import torch

_BEGINS = ("vision_start_token_id", "image_start_token_id", "video_start_token_id")
_ENDS = ("vision_end_token_id", "image_end_token_id", "video_end_token_id")


class Written:
    """Finds a processor's own text."""

    def __init__(self, config, patterns: Sequence[str], placeholder: int, tokenizer):
        """
        Args:
            config: the model's; names marks of begin and end.
            patterns: regular expressions (ModelSpec.writes).
            placeholder: the id that takes the place of what is found by column.
            tokenizer: None where there is none; nothing is then found by text.
        """
        self._begins = {getattr(config, name, None) for name in _BEGINS} - {None}
        self._ends = {getattr(config, name, None) for name in _ENDS} - {None}
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._placeholder = placeholder
        self._tokenizer = tokenizer

    def hide(
        self, row: torch.Tensor, real: torch.Tensor, spans: Sequence[tuple[int, int]]
    ) -> list[int]:
        """The real tokens, with a placeholder for each between the columns of one visual and
        within the marks of a video.

        Args:
            row: int64 (L), ids.
            real: bool (L).
            spans: first and last column of each image and video.
        """
        row = row.clone()
        for first, last in spans:
            row[first : last + 1] = self._placeholder
        depth, found = 0, []
        tokens = row[real.to(row.device)].tolist()
        for token in tokens:
            depth += (token in self._begins) - (token in self._ends)
            found.append(self._placeholder if depth else token)
        return tokens if depth else found  # unpaired marks are not understood

    def strip(self, segment: Sequence[int], own: Sequence[bool]) -> list[int]:
        """The tokens of a segment between special tokens that are a user's.

        Args:
            segment: ids.
            own: of each, whether it is none of the template's.
        """
        pieces = [self._tokenizer.decode([token]) for token in segment]
        written = self._matches(pieces)
        left = [i for i in range(len(segment)) if own[i] and not written[i]]
        # Blanks and line breaks at either end: processors write them around images.
        words = [n for n, i in enumerate(left) if pieces[i].strip()]
        return [segment[i] for i in left[words[0] : words[-1] + 1]] if words else []

    def _matches(self, pieces: list[str]) -> list[bool]:
        """Which pieces have a character in what a pattern finds."""
        ends = [*accumulate(map(len, pieces))]
        text = "".join(pieces)
        spans = [match.span() for p in self._patterns for match in p.finditer(text)]
        return [
            any(begin < end and end - len(piece) < stop for begin, stop in spans)
            for piece, end in zip(pieces, ends, strict=True)
        ]
