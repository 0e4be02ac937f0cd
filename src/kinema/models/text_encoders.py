"""Text encoders of other models: a network that returns hidden states, and which of them a backbone takes.

Those of published video models are T5-type encoders, whose last states are used, or causal language models,
of which one of the last layers is used and the prompt is put into a template (`TEXT_SETTINGS`).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from kinema.errors import ConfigError
from kinema.models.conditioning import TextStates
from kinema.prompts.reading import PromptReport, WordUse, read_as_written

REMEMBERED = 16  # prompts whose states are kept: 512 tokens of 4096 numbers are 8 MiB
PLACE = "{}"
"""The place of the prompt in a template."""


@dataclass(frozen=True)
class TextSettings:
    """Which states of a text encoder are used.

    `layer` is an index into the hidden states: 0 are the embeddings, -1 is the output after the final norm.
    The tokens of `template` before its `{}` are encoded and then left out. Raises `ConfigError` for a
    template without one place for the prompt.
    """

    layer: int = -1
    template: str = PLACE
    max_length: int = 512
    """The largest number of states of a prompt."""

    def __post_init__(self) -> None:
        if self.template.count(PLACE) != 1:
            raise ConfigError(
                f"template = {self.template!r} must contain {PLACE}, the place of the prompt, once"
            )
        if self.max_length < 1:
            raise ConfigError(f"max_length = {self.max_length} must be at least 1")


ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video",
)
TEXT_SETTINGS = {
    "hunyuan-video": TextSettings(
        layer=-3,
        template="<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the "
        f"following aspects: {''.join(ASPECTS)}:<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        max_length=256,
    ),
    "hunyuan-video-1.5": TextSettings(
        layer=-3,
        template="<|im_start|>system\nYou are a helpful assistant. Describe the video by detailing the "
        f"following aspects: {' ' * 8}{(' ' * 9).join(ASPECTS)}.<|im_end|>\n"
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        max_length=1000,
    ),
    "minimax-h3": TextSettings(layer=50),
    "sana-video": TextSettings(max_length=300),
}
"""Settings of published models: Llama 3 in HunyuanVideo, Qwen2.5-VL in HunyuanVideo 1.5 (templates as in
diffusers 0.42), Qwen3-VL in MiniMax-H3, Gemma 2 in SANA-Video.
"""


class HiddenStates:
    """A text encoder: one prompt at a time goes through `network`, without padding.

    `load` returns the network on its device, in transformers' form. It is called at the first prompt, and the
    network is released afterwards unless `keep` is set: its weights are the largest part of most models. The
    states of recent prompts are cached. `tokens` returns the tokens of a text, truncated as by its tokenizer,
    and how many of the first are left out of the states. Tokens `padding`, if given, fill every prompt to
    `max_length` and are attended to. `clean` normalises a prompt. A network with `text_embeds` gives pooled
    vectors.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        tokens: Callable[[str], tuple[list[int], int]],
        text_width: int,
        *,
        max_length: int,
        layer: int = -1,
        padding: int | None = None,
        keep: bool = False,
        clean: Callable[[str], str] = str,
    ) -> None:
        self.text_width, self.max_length, self.layer, self.keep = text_width, max_length, layer, keep
        self.tokens, self.padding, self.clean = tokens, padding, clean
        self._load = lru_cache(maxsize=1)(load)
        self._states: dict[str, TextStates] = {}

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The hidden states of all prompts, in float32 on the encoder's device."""
        cleaned = [self.clean(prompt) for prompt in prompts]
        wanted = [text for text in dict.fromkeys(cleaned) if text not in self._states]
        if wanted:
            if len(self._states) + len(wanted) > REMEMBERED:
                self._states.clear()
                wanted = list(dict.fromkeys(cleaned))
            network = self._load()
            for text in wanted:
                self._states[text] = self._encode(network, text)
            if not self.keep:
                self._load.cache_clear()

        return TextStates.cat([self._states[text] for text in cleaned])

    @torch.no_grad()
    def _encode(self, network: nn.Module, text: str) -> TextStates:
        ids, crop = self.tokens(text)
        if self.padding is not None:
            ids = ids + [self.padding] * (self.max_length - len(ids))
        tokens = torch.tensor([ids], device=next(network.parameters()).device)
        is_last = self.layer == -1
        out = network(tokens, torch.ones_like(tokens), output_hidden_states=not is_last)
        states = (out.last_hidden_state if is_last else out.hidden_states[self.layer])[0, crop:].float()
        pooled = getattr(out, "text_embeds", None)
        return TextStates(states, (len(states),), None if pooled is None else pooled.float())

    def read_prompt(self, prompt: str) -> PromptReport:
        """Each word is read as it is, up to the longest length: the network knows texts of every kind."""
        words = self.clean(prompt).split()

        def is_full(count: int) -> bool:
            ids, crop = self.tokens(" ".join(words[:count]))
            return len(ids) - crop >= self.max_length

        if not is_full(len(words)):
            return read_as_written(prompt)
        num_read = bisect_left(range(len(words)), True, key=is_full)
        uses = [WordUse(word, word if i < num_read else None, True) for i, word in enumerate(words)]
        return PromptReport(tuple(uses))
