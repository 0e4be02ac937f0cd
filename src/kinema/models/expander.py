"""The expander: completes a short prompt in the style of training captions and keeps every word of the user.

It only inserts. Each step either copies the next token of the prompt or inserts a word before it, so the text
of the user stays in the result, in its order and spelling: unknown words, numbers, quotes, negations. Each
copy moves the pointer to the next token by one, a monotone form of the copy mechanism of See et al. 2017
(arXiv:1704.04368). Copying the end of the prompt ends the expansion. A bidirectional encoder reads the prompt
and a GRU writes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.nn.norms import LayerNorm
from kinema.nn.transformer import TransformerBlock
from kinema.prompts.segment import CHINESE
from kinema.prompts.word_tokenizer import NUMBERS, WordTokenizer
from kinema.prompts.words import CLAUSE_ENDS, NEGATIONS, NEGATIONS_ZH, QUOTES
from kinema.shapes import Bool, Float

PROMPT_KINDS = ("text", "image", "edit")
"""Uses of a prompt: a video from text, a video from text and a first image, an edit of a clip."""
COPY, UNKNOWN, END = "<copy>", "<unknown>", "<end>"
COPY_ID = 0
SPECIAL = (COPY, UNKNOWN, END, *(f"<{kind}>" for kind in PROMPT_KINDS))
MARKS = (",", ".", "，", "。")
COMMAS = (",", "，", ";", "；")
SENTENCE_ENDS = (".", "。", "!", "！")
TOKEN = re.compile(
    rf"(?P<space>\s*)(?P<text>[{CHINESE}]+|[^\W\d_{CHINESE}]+(?:['’][^\W\d_]+)*|\d+(?:[.,:]\d+)*|\S)"
)
PREPOSITIONS = frozenset(
    ("at", "on", "in", "into", "onto", "over", "under", "to", "from", "with", "of", "by", "behind", "through")
)
WORD_STARTS = ("在", "从", "向", "往")
MAX_INSERTED = 48
MAX_IN_A_ROW = 20
"""Most inserted words in all, and between two words of the user. Training targets are shorter."""


@dataclass(frozen=True)
class ExpanderConfig:
    """Sizes of an expander. Raises `ConfigError` for sizes that do not fit together."""

    words: tuple[str, ...] = ()
    """Known words, all of which can be inserted. A recipe leaves them to the world."""
    width: int = 56
    layers: int = 2
    heads: int = 4
    hidden: int = 96
    max_length: int = 96
    """Number of positions. Later tokens have the last position."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.hidden, self.max_length) < 1:
            raise ConfigError("width, layers, heads, hidden and max_length must be at least 1")
        if self.width % self.heads:
            raise ConfigError(f"width={self.width} must be a multiple of heads={self.heads}")


@dataclass(frozen=True)
class PromptToken:
    """A word or mark of a prompt as written."""

    text: str
    space: str
    """The white space before it."""
    reading: int
    """The id under which the network reads it."""
    is_open: bool = True
    """Whether words may be inserted before it."""


class Expander(nn.Module):
    """The network of this module."""

    def __init__(self, config: ExpanderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = (*SPECIAL, *MARKS, *(word for word in config.words if word not in MARKS))
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.tokenizer = WordTokenizer(config.words, max_length=10**6)
        width, hidden = config.width, config.hidden
        self.embed = nn.Embedding(len(self.tokens), width)
        self.places = nn.Embedding(config.max_length, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, config.heads) for _ in range(config.layers))
        self.norm = LayerNorm(width)
        self.gru = nn.GRU(2 * width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, width)
        if not self.embed.weight.is_meta:
            nn.init.normal_(self.embed.weight, std=width**-0.5)
            nn.init.normal_(self.places.weight, std=width**-0.5)

    def read(self, prompt: str) -> list[PromptToken]:
        """The tokens of a prompt. Their spaces and texts joined are the prompt without trailing white space.

        Nothing may be inserted inside quotes, from a negation to the end of its clause ("no snow" would
        become "no green snow"), between a preposition and its noun, and into Chinese that is not known to be
        two words.
        """
        tokens: list[PromptToken] = []
        closes, is_negated = "", False

        for match in TOKEN.finditer(prompt):
            space, text = match["space"], match["text"]
            is_apart = bool(space) or not tokens or _is_chinese(text) or _is_chinese(tokens[-1].text)
            follows_preposition = _is_bound([token.text.casefold() for token in tokens[-2:]])
            is_open = not closes and (is_apart or text in COMMAS) and not follows_preposition

            if closes == text:
                closes = ""
            elif not closes and text in QUOTES and QUOTES[text] in prompt[match.end() :]:
                closes = QUOTES[text]

            for index, (word, reading) in enumerate(self._readings(text)):
                if index:
                    space, is_open = "", not closes and self._starts_word(word)
                tokens.append(PromptToken(word, space, reading, is_open and not is_negated))
                is_negated = word not in CLAUSE_ENDS and (is_negated or _is_negation(word))

        if tokens and (tokens[0].text.isdigit() or tokens[0].text.casefold() in NUMBERS):
            tokens[0] = replace(tokens[0], is_open=False)  # no article before a number
        return tokens

    def _starts_word(self, text: str) -> bool:
        """Whether `text`, inside Chinese without spaces, is known to begin a new word."""
        return text in self.ids and (len(text) > 1 or text in WORD_STARTS)

    def _readings(self, text: str) -> list[tuple[str, int]]:
        """The words of a match, each with its id.

        A word that is not known has the id of its synonym, or else the id of the unknown word.
        """
        word = "a" if text.casefold() == "an" else text.casefold()
        if word in self.ids:
            return [(text, self.ids[word])]
        unknown = self.ids[UNKNOWN]
        uses = self.tokenizer.explain(text)
        if "".join(use.word for use in uses) == text:
            return [(use.word, _reading(self.ids, use.used, unknown)) for use in uses]

        # English words change their case and may lose an apostrophe.
        return [(text, _reading(self.ids, uses[0].used, unknown) if len(uses) == 1 else unknown)]

    def source(self, kind: str, readings: Sequence[int]) -> list[int]:
        """The input of the encoder: the use of the prompt, its tokens, the end."""
        return [self.ids[f"<{kind}>"], *readings, self.ids[END]]

    def forward(
        self, sources: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "b s m"], Bool[Tensor, "b s"]]:
        """Logits (b, s, m) over the tokens at every step of every expansion, and which steps exist.

        `steps` are ids: COPY, or the inserted word. The last step copies the end of the source.
        """
        device = self.embed.weight.device
        states = self.encode(sources)
        longest = max(map(len, steps))
        copied = states[0].new_zeros(len(sources), longest, states[0].shape[1])
        before = torch.zeros(len(sources), longest, dtype=torch.long)
        is_step = torch.zeros(len(sources), longest, dtype=torch.bool)

        for row, (source, own) in enumerate(zip(sources, steps)):
            pointer, pointers, previous = 1, [], [source[0]]
            for step in own:
                pointers.append(pointer)
                if step == COPY_ID:
                    previous.append(source[pointer])
                    pointer += 1
                else:
                    previous.append(step)

            copied[row, : len(own)] = states[row][pointers]
            before[row, : len(own)] = torch.tensor(previous[:-1])
            is_step[row, : len(own)] = True

        hidden, _ = self.gru(torch.cat([self.embed(before.to(device)), copied], dim=-1))
        return self.logits(hidden), is_step.to(device)

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Float[Tensor, "n d"]]:
        """The states of the tokens of every source."""
        device = self.embed.weight.device
        lengths = tuple(map(len, sources))
        packed = torch.tensor([token for source in sources for token in source], device=device)
        last = self.config.max_length - 1
        positions = torch.tensor([min(i, last) for length in lengths for i in range(length)], device=device)

        x = self.embed(packed) + self.places(positions)
        for block in self.blocks:
            x = block(x, lengths)
        return list(self.norm(x).split(lengths))

    def logits(self, hidden: Float[Tensor, "*b h"]) -> Float[Tensor, "*b m"]:
        """Scores of copying and of every word. Other special tokens have minus infinity."""
        scores = self.head(hidden) @ self.embed.weight.T
        mask = torch.zeros(len(self.tokens), device=scores.device)
        mask[1 : len(SPECIAL)] = -torch.inf
        return scores + mask

    @torch.inference_mode()
    def expand(
        self,
        prompt: str,
        *,
        kind: str = "text",
        seed: int = 0,
        top_p: float = 0.7,
        may_add: Callable[[str], bool] | None = None,
    ) -> str:
        """The completed prompt. `kind` is one of `PROMPT_KINDS`.

        At each step `seed` chooses among the most probable tokens that together have the probability `top_p`.
        Only words for which `may_add` is true are inserted.
        """
        tokens = self.read(prompt)
        closing: list[PromptToken] = []
        while tokens and tokens[-1].text in SENTENCE_ENDS:
            closing.insert(0, tokens.pop())

        written, is_own = self._write(tokens, kind, seed, top_p, may_add)
        while is_own and is_own[-1] and written[-1].text in MARKS:
            written.pop()
            is_own.pop()
        return join_tokens([*written, *closing], [*is_own, *(False for _ in closing)])

    def _write(
        self,
        tokens: Sequence[PromptToken],
        kind: str,
        seed: int,
        top_p: float,
        may_add: Callable[[str], bool] | None,
    ) -> tuple[list[PromptToken], list[bool]]:
        """The tokens of the expansion, and whether each was inserted."""
        # Words after a negation that ends the prompt would be negated too.
        may_end = not any(_is_negation(token.text) for token in _last_clause(tokens))
        source = self.source(kind, [token.reading for token in tokens])
        (states,) = self.encode([source])
        banned = self._banned(kind, may_add).to(states.device)
        generator = torch.Generator().manual_seed(seed)

        written: list[PromptToken] = []
        is_own: list[bool] = []
        previous, state = source[0], None
        pointer = in_a_row = 0
        while True:
            inputs = torch.cat([self.embed.weight[previous], states[pointer + 1]])
            hidden, state = self.gru(inputs[None, None], state)
            is_open = tokens[pointer].is_open if pointer < len(tokens) else may_end
            may_insert = is_open and in_a_row < MAX_IN_A_ROW and sum(is_own) < MAX_INSERTED
            choice = COPY_ID
            if may_insert:
                choice = _draw(self.logits(hidden[0, 0]) + banned, top_p, generator)

            if choice != COPY_ID:
                written.append(PromptToken(self.tokens[choice], "", choice))
                is_own.append(True)
                in_a_row, previous = in_a_row + 1, choice
            elif pointer < len(tokens):
                written.append(tokens[pointer])
                is_own.append(False)
                previous, pointer, in_a_row = tokens[pointer].reading, pointer + 1, 0
            else:
                return written, is_own

    def _banned(self, kind: str, may_add: Callable[[str], bool] | None) -> Float[Tensor, " m"]:
        """Minus infinity for the words that `may_add` excludes and, except for an edit, for the ends of
        sentences; zero for all other tokens.
        """
        banned = torch.zeros(len(self.tokens))
        for index, word in enumerate(self.tokens[len(SPECIAL) :], start=len(SPECIAL)):
            is_end = word in SENTENCE_ENDS and kind != "edit"
            if is_end or (may_add is not None and not may_add(word)):
                banned[index] = -torch.inf
        return banned


def join_tokens(tokens: Sequence[PromptToken], is_own: Sequence[bool]) -> str:
    """The text of tokens. Inserted ones (`is_own`) get spaces, capitals and the right one of `a` and `an`."""
    text = ""
    for index, token in enumerate(tokens):
        word, after_own = token.text, index > 0 and is_own[index - 1]

        following = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if word in ("a", "an") and following and (is_own[index] or is_own[index + 1]):
            word = "an" if following[0].lower() in "aeiou" else "a"
        if is_own[index] and text.endswith((". ", ".")) and after_own:
            word = word[:1].upper() + word[1:]

        space = token.space
        if is_own[index] or after_own:
            space = " " if _needs_space(text, word) else ""
        text += space + word
    return text


def _needs_space(text: str, word: str) -> bool:
    """Whether a space separates `word` from the `text` before it."""
    if not text or word in MARKS or text[-1] in "，。":
        return False
    return not (_is_chinese(word) and _is_chinese(text[-1]))


def _draw(logits: Float[Tensor, " m"], top_p: float, generator: torch.Generator) -> int:
    """One of the most probable tokens that together have the probability `top_p`."""
    probabilities, order = logits.softmax(dim=0).sort(descending=True)
    kept = probabilities[: int((probabilities.cumsum(0) < top_p).sum()) + 1]
    return int(order[torch.multinomial(kept.cpu(), 1, generator=generator)])


def _reading(ids: dict[str, int], used: str | None, unknown: int) -> int:
    """The id of the last word of `used`, the synonym that stands for a word."""
    return ids.get(used.split()[-1], unknown) if used else unknown


def _is_negation(text: str) -> bool:
    return re.sub("['’]", "", text.casefold()) in NEGATIONS or text.startswith(NEGATIONS_ZH)


def _is_bound(before: Sequence[str]) -> bool:
    """Whether the next word belongs to a preposition, with or without an article between them."""
    return bool(before) and (
        before[-1] in PREPOSITIONS or (before[-1] in ("a", "an", "the") and before[0] in PREPOSITIONS)
    )


def _last_clause(tokens: Sequence[PromptToken]) -> list[PromptToken]:
    """The tokens after the last mark that ends a clause."""
    last = max((index for index, token in enumerate(tokens) if token.text in CLAUSE_ENDS), default=-1)
    return list(tokens[last + 1 :])


def _is_chinese(text: str) -> bool:
    return bool(re.match(f"[{CHINESE}，。]", text))
