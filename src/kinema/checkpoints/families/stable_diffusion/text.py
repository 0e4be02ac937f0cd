"""What image models read prompts with: one or two CLIP text encoders, or a table of classes."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kinema.checkpoints.manifest import CONFIG
from kinema.checkpoints.text_encoders import load_network, transformers_module
from kinema.errors import ModelError, RequestError
from kinema.files import read_json
from kinema.models.conditioning import TextStates
from kinema.models.text_encoders import HiddenStates
from kinema.prompts.reading import PromptReport, read_as_written

TOKENS = 77


def clip_encoder(model: Path, name: str, layer: int, device: torch.device, *, keep: bool) -> HiddenStates:
    """The CLIP text encoder in the folder `name` of a model, with the states of `layer`.

    Prompts are padded to 77 tokens, and the padding is attended to, as in training. Raises `ModelError`.
    """
    folder, config = model / name, read_json(model / name / CONFIG)
    transformers = transformers_module(f"{folder} needs")
    home = model / name.replace("text_encoder", "tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(home, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{home} has no tokenizer that can be loaded: {' '.join(str(error).split())[:300]}"
        ) from (error)

    def tokens(text: str) -> tuple[list[int], int]:
        return tokenizer(text, truncation=True, max_length=TOKENS)["input_ids"], 0

    architecture = config.get("architectures", ["CLIPTextModel"])[0]
    return HiddenStates(
        partial(load_network, architecture, folder, device),
        tokens,
        int(config["hidden_size"]),
        max_length=TOKENS,
        layer=layer,
        padding=tokenizer.pad_token_id,
        keep=keep,
    )


class JoinedText:
    """The states of several encoders side by side, and the pooled vector of the last (SDXL).

    With `zero_empty` the states and the vector of the empty prompt are zeros.
    """

    def __init__(self, encoders: Sequence[HiddenStates], *, zero_empty: bool) -> None:
        self.encoders, self.zero_empty = tuple(encoders), zero_empty
        self.text_width = sum(encoder.text_width for encoder in encoders)
        self.max_length = TOKENS

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The states of all prompts, in float32."""
        parts = [encoder.encode_prompts(prompts) for encoder in self.encoders]
        states, pooled, lengths = (
            torch.cat([part.states for part in parts], 1),
            parts[-1].pooled,
            parts[-1].lengths,
        )
        if self.zero_empty:
            is_kept = torch.tensor([float(bool(prompt)) for prompt in prompts], device=states.device)
            states = states * is_kept.repeat_interleave(TOKENS)[:, None]
            pooled = None if pooled is None else pooled * is_kept[:, None]
        return TextStates(states, lengths, pooled)

    def read_prompt(self, prompt: str) -> PromptReport:
        """See `HiddenStates`. All encoders have the same tokens."""
        return self.encoders[0].read_prompt(prompt)


class ClassLabels:
    """The number of the class that a prompt names: a number, or one of its names. The empty prompt is the
    class of none.
    """

    text_width, max_length = 0, 1

    def __init__(self, labels: dict[str, str], num_classes: int, device: torch.device) -> None:
        """`labels` maps numbers to names, several of which are separated by commas."""
        self.num_classes, self.device = num_classes, device
        self.numbers = {
            name.strip().lower(): int(number) for number, names in labels.items() for name in names.split(",")
        }

    def encode_prompts(self, prompts: Sequence[str]) -> TextStates:
        """The numbers as pooled vectors, and no states. Raises `RequestError` for a name of no class."""
        rows = [[float(self._number(prompt))] for prompt in prompts]
        states: Tensor = torch.zeros(0, 0, device=self.device)
        return TextStates(states, (0,) * len(rows), torch.tensor(rows, device=self.device))

    def _number(self, prompt: str) -> int:
        name = prompt.strip().lower()
        number = self.numbers.get(name, int(name) if name.isdecimal() else -1) if name else self.num_classes
        if not 0 <= number <= self.num_classes:
            near = ", ".join(get_close_matches(name, self.numbers, n=3)) or "a number"
            raise RequestError(
                f"'{prompt}' is no class of this model: use one of its names, or a number below "
                f"{self.num_classes}; near are {near}"
            )
        return number

    def read_prompt(self, prompt: str) -> PromptReport:
        """The prompt as it is: it names one class."""
        return read_as_written(prompt)
