"""Which tokens of a prompt a chat template wrote, so that only the user's words count as the
question.

1. Render the template with stand-in words for each message, tokenize, and find each stand-in by
   exchanging it for another word: what stays the same on both sides is the template's own.
2. Cut the result at special tokens into segments. A segment without a stand-in is fixed text; one
   with a stand-in has a prefix, a suffix and perhaps separators between messages.
3. Cut a real prompt in the same way and take these pieces off its segments.
Working on tokens rather than text needs no way back from tokens to characters. A blank between
frame and question may be a token of its own or the beginning of the question's first, depending on
that word: each piece is also known without the blanks at its ends.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

Tokens = tuple[int, ...]

_LAYOUTS = ("image first", "image last", "no image", "plain text")


@dataclass
class Template:
    """The template's own token sequences."""

    fixed: set[Tokens] = field(default_factory=set)
    prefixes: set[Tokens] = field(default_factory=set)
    suffixes: set[Tokens] = field(default_factory=set)
    separators: set[Tokens] = field(default_factory=set)

    def strip(self, segment: Sequence[int]) -> list[bool]:
        """Which tokens of a segment between special tokens are not the template's."""
        tokens = tuple(segment)
        if tokens in self.fixed:
            return [False] * len(tokens)
        begin = max((len(p) for p in self.prefixes if tokens[: len(p)] == p), default=0)
        rest = len(tokens) - begin
        end = max(
            (len(s) for s in self.suffixes if len(s) <= rest and tokens[-len(s) :] == s), default=0
        )
        own = [begin <= i < len(tokens) - end for i in range(len(tokens))]
        for separator in sorted(self.separators, key=len, reverse=True):
            for i in range(begin, len(tokens) - end - len(separator) + 1):
                if tokens[i : i + len(separator)] == separator and own[i]:
                    own[i : i + len(separator)] = [False] * len(separator)
        return own


def learn_template(processor, tokenizer, special: Collection[int]) -> Template | None:
    """The template of a processor or tokenizer; None if it has none or cannot render a
    conversation.

    Args:
        processor: has apply_chat_template; may be the tokenizer itself.
        tokenizer: turns the rendered text into ids.
        special: ids that cut segments: special tokens and visual placeholders.
    """
    if not getattr(processor, "chat_template", None):
        return None
    words = _two_words(tokenizer, special)
    if words is None:
        return None
    template = Template()
    learned = False
    for layout in _LAYOUTS:
        for turns in (3, 1):
            try:
                tokens, holes = _render_with_holes(processor, tokenizer, layout, turns, words)
            except Exception:
                continue  # a template is user code and may refuse a layout with any exception
            blank = {
                t for t in set(tokens) if t not in special and not tokenizer.decode([t]).strip()
            }
            _learn(template, tokens, holes, special, blank)
            learned = True
            break
    return template if learned else None


def _learn(
    template: Template,
    tokens: Tokens,
    holes: list[range],
    special: Collection[int],
    blank: Collection[int],
) -> None:
    """Adds the pieces of one rendering."""
    inside = {i for hole in holes for i in hole}
    starts = {hole.start for hole in holes}
    literals: list[list[int]] = [[]]  # the pieces of the current segment around its holes
    for i, token in enumerate((*tokens, None)):
        if token is not None and token not in special:
            if i in starts:
                literals.append([])
            if i not in inside:
                literals[-1].append(token)
            continue
        if len(literals) == 1:
            template.fixed.add(tuple(literals[0]))
        else:
            template.prefixes.update(_variants(literals[0], blank))
            template.suffixes.update(_variants(literals[-1], blank))
            for piece in literals[1:-1]:
                template.separators.update(_variants(piece, blank))
        literals = [[]]


def _variants(piece: list[int], blank: Collection[int]) -> set[Tokens]:
    """The piece, and without the blanks at either end and at both; nothing empty."""
    begin, end = 0, len(piece)
    while begin < end and piece[begin] in blank:
        begin += 1
    while end > begin and piece[end - 1] in blank:
        end -= 1
    cuts = {tuple(piece[b:e]) for b in (0, begin) for e in (end, len(piece))}
    return cuts - {()}


def _render_with_holes(processor, tokenizer, layout: str, turns: int, words: tuple[str, str]):
    """Tokens of a conversation of stand-ins, and where each stand-in is."""
    first, other = words
    tokens = _render(processor, tokenizer, layout, [first] * turns)
    holes = []
    for turn in range(turns):
        texts = [other if i == turn else first for i in range(turns)]
        changed = _render(processor, tokenizer, layout, texts)
        same = _common(tokens, changed)
        tail = _common(tokens[same:][::-1], changed[same:][::-1])
        holes.append(range(same, len(tokens) - tail))
    return tokens, holes


def _render(processor, tokenizer, layout: str, texts: list[str]) -> Tokens:
    messages = []
    for i, text in enumerate(texts):
        content = [{"type": "text", "text": text}]
        if i == 0 and layout == "image first":
            content.insert(0, {"type": "image"})
        if i == 0 and layout == "image last":
            content.append({"type": "image"})
        plain = layout == "plain text"
        messages.append(
            {"role": "assistant" if i % 2 else "user", "content": text if plain else content}
        )
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if "'type'" in text:
        raise ValueError("the template prints the content list: it is made for plain text")
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _two_words(tokenizer, special: Collection[int]) -> tuple[str, str] | None:
    """Two words whose tokens differ at both ends; a small vocabulary may know few words."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    found: list[tuple[str, list[int]]] = []
    for word in chain(("zebra", "42"), _known_words(tokenizer)):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids or unknown in ids or any(i in special for i in ids):
            continue
        if found and ids[0] != found[0][1][0] and ids[-1] != found[0][1][-1]:
            return found[0][0], word
        found = found or [(word, ids)]
    return None


def _known_words(tokenizer) -> Iterator[str]:
    """Read only if needed: a large vocabulary takes a while to sort."""
    for word in sorted(tokenizer.get_vocab()):
        if word.isascii() and word.isalpha():
            yield word


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the common beginning."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length
