"""The expander: a short prompt in, the prompt in the style of training out, with every word of the user's in it.

It only ever *inserts*. At each step it either copies the next token of the prompt or puts a word of its own before it, so what the user
wrote stands in the result, in its order and as it was written: words that the network has never seen, numbers, quotes, negations. The
pointer to the next token moves on by one with each copy, which makes the copy mechanism of See et al. 2017 (arXiv:1704.04368) monotone;
copying the end of the prompt ends the expansion. An encoder reads the prompt in both directions; a GRU writes.
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
from kinema.prompts.tokenizer import NUMBERS, Tokenizer
from kinema.prompts.words import CLAUSE_ENDS, NEGATIONS, NEGATIONS_ZH, QUOTES
from kinema.shapes import Bool, Float

PROMPT_KINDS = ("text", "image", "edit")
"""What a prompt is for: a video from words alone, from words and a first picture, a clip that is to be changed."""
COPY, UNKNOWN, END = "<copy>", "<unknown>", "<end>"
SPECIAL = (COPY, UNKNOWN, END, *(f"<{kind}>" for kind in PROMPT_KINDS))
MARKS = (",", ".", "，", "。")
TOKEN = re.compile(
    rf"(?P<space>\s*)(?P<text>[{CHINESE}]+|[^\W\d_{CHINESE}]+(?:['’][^\W\d_]+)*|\d+(?:[.,:]\d+)*|\S)"
)
PREPOSITIONS = frozenset(
    ("at", "on", "in", "into", "onto", "over", "under", "to", "from", "with", "of", "by", "behind", "through")
)
WORD_STARTS = ("在", "从", "向", "往")
MAX_INSERTED = 48
MAX_IN_A_ROW = 20
"""Words of its own that the expander adds in all, and between two words of the user's: the longest that training shows is shorter."""


@dataclass(frozen=True)
class ExpanderConfig:
    """Sizes. `words` are those it can add and knows the meaning of, without marks; a recipe leaves them to the world."""

    words: tuple[str, ...] = ()
    width: int = 56
    layers: int = 2
    heads: int = 4
    hidden: int = 96
    max_length: int = 96
    """Places told apart; what stands further behind is read as standing there."""

    def __post_init__(self) -> None:
        if (
            self.heads < 1
            or self.width % self.heads
            or min(self.width, self.layers, self.hidden, self.max_length) < 1
        ):
            raise ConfigError(
                f"width={self.width} must be a multiple of heads={self.heads}; layers, hidden and max_length at least 1"
            )


@dataclass(frozen=True)
class PromptToken:
    """A word or mark of a prompt as written, the space before it, and the id that it is read as. `is_open`: words may go before it."""

    text: str
    space: str
    reading: int
    is_open: bool = True


class Expander(nn.Module):
    """See the module."""

    def __init__(self, config: ExpanderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = (*SPECIAL, *MARKS, *(word for word in config.words if word not in MARKS))
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.tokenizer = Tokenizer(config.words, max_length=10**6)
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
        """The tokens of a prompt, whose spaces and texts add up to it but for white space at its end.

        Nothing may go inside quotes, nor from a negation to the end of its clause ("no snow" would become "no green snow"), between a
        preposition and its noun, or into Chinese that is not known to be two words.
        """
        tokens: list[PromptToken] = []
        closes, is_negated = "", False
        for match in TOKEN.finditer(prompt):
            space, text = match["space"], match["text"]
            is_apart = bool(space) or not tokens or _is_chinese(text) or _is_chinese(tokens[-1].text)
            is_open = (
                not closes and is_apart and not _is_bound([token.text.casefold() for token in tokens[-2:]])
            )
            if closes == text:
                closes = ""
            elif not closes and text in QUOTES:
                closes = QUOTES[text] if QUOTES[text] in prompt[match.end() :] else ""
            for index, (part, reading) in enumerate(self._readings(text)):
                may_part = not closes and part in self.ids and (len(part) > 1 or part in WORD_STARTS)
                tokens.append(
                    PromptToken(
                        part,
                        "" if index else space,
                        reading,
                        not is_negated and (may_part if index else is_open),
                    )
                )
                is_negated = part not in CLAUSE_ENDS and (is_negated or _is_negation(part))
        if tokens and (tokens[0].text.isdigit() or tokens[0].text.casefold() in NUMBERS):
            tokens[0] = replace(tokens[0], is_open=False)  # no article before a number
        return tokens

    def _readings(self, text: str) -> list[tuple[str, int]]:
        """A match cut into words, each with its id; a word that is not known has that of what stands in for it, or that of the unknown."""
        word = "a" if text.casefold() == "an" else text.casefold()
        if word in self.ids:
            return [(text, self.ids[word])]
        unknown = self.ids[UNKNOWN]
        uses = self.tokenizer.explain(text)
        if (
            "".join(use.word for use in uses) != text
        ):  # English words change their case, and may lose an apostrophe
            return [(text, _reading(self.ids, uses[0].used, unknown) if len(uses) == 1 else unknown)]
        return [(use.word, _reading(self.ids, use.used, unknown)) for use in uses]

    def source(self, kind: str, readings: Sequence[int]) -> list[int]:
        """What the encoder sees of a prompt: what it is for, its tokens, its end."""
        return [self.ids[f"<{kind}>"], *readings, self.ids[END]]

    def forward(
        self, sources: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "b s m"], Bool[Tensor, "b s"]]:
        """Logits over the tokens at every step of every expansion, and which steps there are.

        `steps` are ids: COPY, or the word that is inserted. The last one copies the end of the source.
        """
        device = self.embed.weight.device
        states = self.encode(sources)
        longest = max(map(len, steps))
        seen = states[0].new_zeros(len(sources), longest, states[0].shape[1])
        before = torch.zeros(len(sources), longest, dtype=torch.long)
        is_step = torch.zeros(len(sources), longest, dtype=torch.bool)
        for row, (source, own) in enumerate(zip(sources, steps)):
            at, pointers, previous = 1, [], [source[0]]
            for step in own:
                pointers.append(at)
                previous.append(source[at] if step == 0 else step)
                at += step == 0
            seen[row, : len(own)] = states[row][pointers]
            before[row, : len(own)] = torch.tensor(previous[:-1])
            is_step[row, : len(own)] = True
        hidden, _ = self.gru(torch.cat([self.embed(before.to(device)), seen], dim=-1))
        return self.logits(hidden), is_step.to(device)

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Float[Tensor, "n d"]]:
        """The states of the tokens of every source."""
        device = self.embed.weight.device
        lengths = tuple(map(len, sources))
        packed = torch.tensor([token for source in sources for token in source], device=device)
        places = torch.tensor(
            [min(place, self.config.max_length - 1) for length in lengths for place in range(length)],
            device=device,
        )
        x = self.embed(packed) + self.places(places)
        for block in self.blocks:
            x = block(x, lengths)
        return list(self.norm(x).split(lengths))

    def logits(self, hidden: Float[Tensor, "*b h"]) -> Float[Tensor, "*b m"]:
        """Scores of copying and of every word; of other special tokens minus infinity."""
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
        """The prompt with what it leaves open filled in. `seed` chooses at each step among the likeliest tokens that make up `top_p`.

        Only words for which `may_add` is true are added.
        """
        tokens = self.read(prompt)
        closing: list[PromptToken] = []
        while tokens and tokens[-1].text in (".", "。", "!", "！"):
            closing.insert(0, tokens.pop())
        # What is added behind a negation that ends the prompt would be read as negated too.
        may_end = not any(_is_negation(token.text) for token in _last_clause(tokens))
        source = self.source(kind, [token.reading for token in tokens])
        (states,) = self.encode([source])
        banned = torch.zeros(len(self.tokens), device=states.device)
        unwanted = [
            may_add is not None and index >= len(SPECIAL) and not may_add(word)
            for index, word in enumerate(self.tokens)
        ]
        banned[torch.tensor(unwanted)] = -torch.inf
        generator = torch.Generator().manual_seed(seed)
        written: list[PromptToken] = []
        is_own: list[bool] = []
        previous, state = source[0], None
        at = in_a_row = 0
        while True:
            seen = torch.cat([self.embed.weight[previous], states[at + 1]])
            hidden, state = self.gru(seen[None, None], state)
            is_open = tokens[at].is_open if at < len(tokens) else may_end
            may_insert = is_open and in_a_row < MAX_IN_A_ROW and sum(is_own) < MAX_INSERTED
            choice = _draw(self.logits(hidden[0, 0]) + banned, top_p, generator) if may_insert else 0
            if choice:
                written.append(PromptToken(self.tokens[choice], "", choice))
                is_own.append(True)
                in_a_row, previous = in_a_row + 1, choice
                continue
            if at == len(tokens):
                break
            written.append(tokens[at])
            is_own.append(False)
            previous, at, in_a_row = tokens[at].reading, at + 1, 0
        while is_own and is_own[-1] and written[-1].text in MARKS:
            written.pop()
            is_own.pop()
        return join_tokens([*written, *closing], [*is_own, *(False for _ in closing)])


def join_tokens(tokens: Sequence[PromptToken], is_own: Sequence[bool]) -> str:
    """The text of tokens; those that are the expander's own are spaced, capitalised and given `a` or `an` as the language wants."""
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
            joins = (
                not text
                or word in MARKS
                or text[-1] in "，。"
                or (_is_chinese(word) and _is_chinese(text[-1]))
            )
            space = "" if joins else " "
        text += space + word
    return text


def _draw(logits: Float[Tensor, " m"], top_p: float, generator: torch.Generator) -> int:
    """One of the likeliest tokens that together have `top_p` of the probability."""
    chances, order = logits.softmax(dim=0).sort(descending=True)
    kept = chances[: int((chances.cumsum(0) < top_p).sum()) + 1]
    return int(order[torch.multinomial(kept.cpu(), 1, generator=generator)])


def _reading(ids: dict[str, int], used: str | None, unknown: int) -> int:
    """The id of the last word of what is read for a word."""
    return ids.get(used.split()[-1], unknown) if used else unknown


def _is_negation(text: str) -> bool:
    return re.sub("['’]", "", text.casefold()) in NEGATIONS or text.startswith(NEGATIONS_ZH)


def _is_bound(before: Sequence[str]) -> bool:
    """Whether what comes next belongs to a preposition: it stands right before, or before an article."""
    return bool(before) and (
        before[-1] in PREPOSITIONS or (before[-1] in ("a", "an", "the") and before[0] in PREPOSITIONS)
    )


def _last_clause(tokens: Sequence[PromptToken]) -> list[PromptToken]:
    """The tokens behind the last mark that ends a clause."""
    last = max((index for index, token in enumerate(tokens) if token.text in CLAUSE_ENDS), default=-1)
    return list(tokens[last + 1 :])


def _is_chinese(text: str) -> bool:
    return bool(re.match(f"[{CHINESE}，。]", text))
