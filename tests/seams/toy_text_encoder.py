"""A text encoder in one file and one line: a state per word, from the bytes of the word."""

import hashlib
import json
from pathlib import Path

import torch

from kinema.checkpoints.text_encoders import TEXT_ENCODERS, EncoderSizes, TextEncoderEntry
from kinema.models.conditioning import TextStates
from kinema.prompts.reading import read_as_written

CLASS = "ToyText"


class ToyText:
    """Words to states that their hash determines, after the state of the empty word."""

    def __init__(self, text_width, max_length):
        self.text_width, self.max_length = text_width, max_length
        self.read_prompt = read_as_written

    def encode_prompts(self, prompts):
        """The states of all prompts, packed."""
        texts = [["", *prompt.split()][: self.max_length] for prompt in prompts]
        states = torch.stack([self._state(word) for words in texts for word in words])
        return TextStates(states, tuple(map(len, texts)))

    def _state(self, word):
        digest = hashlib.shake_128(word.encode()).digest(self.text_width)
        return torch.tensor([byte / 127.5 - 1 for byte in digest])


def sizes(folder):
    """Width, number of layers and largest number of tokens."""
    return EncoderSizes(json.loads((folder / "config.json").read_text())["width"], 1, 64)


def load(folder, settings, device, keep):
    """The encoder of a folder."""
    return ToyText(sizes(folder).width, settings.max_length)


def save(folder: Path, width: int):
    """Write an encoder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": CLASS, "width": width}))


ENTRY = TextEncoderEntry(lambda config: config.get("_class_name") == CLASS, sizes, load)


def register(monkeypatch):
    """Add the encoder to the table for one test, before the entry that takes any language model."""
    monkeypatch.setitem(TEXT_ENCODERS, "toy", ENTRY)
