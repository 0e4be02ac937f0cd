"""Conditioning that the package does not make: a text encoder with a vector per prompt, and actions."""

import json
from pathlib import Path

import torch
from tests.seams.toy_text_encoder import ToyText

from kinema.checkpoints.text_encoders import TEXT_ENCODERS, EncoderSizes, TextEncoderEntry
from kinema.models.conditioning import Conditioning, TextStates

CLASS = "ToyPooledText"
POOLED, ACTIONS = 3, 4


class ToyPooledText(ToyText):
    """The toy text encoder with a pooled vector: the mean, least and greatest value of a prompt's states."""

    def encode_prompts(self, prompts):
        """The states and the vectors of all prompts."""
        text = super().encode_prompts(prompts)
        each = text.states.split(text.lengths)
        pooled = torch.stack([torch.stack([s.mean(), s.min(), s.max()]) for s in each])
        return TextStates(text.states, text.lengths, pooled)


def with_actions(text, actions):
    """Conditioning by prompts and by one of `ACTIONS` actions for every latent frame of each clip."""
    return Conditioning(text, frame_vectors=torch.eye(ACTIONS)[torch.tensor(actions)])


def save(folder: Path, width: int):
    """Write an encoder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": CLASS, "width": width}))


def register(monkeypatch):
    """Add the encoder to the table for one test."""
    entry = TextEncoderEntry(
        lambda config: config.get("_class_name") == CLASS,
        lambda folder: EncoderSizes(json.loads((folder / "config.json").read_text())["width"], 1, 64),
        lambda folder, settings, device, keep: ToyPooledText(
            json.loads((folder / "config.json").read_text())["width"], settings.max_length
        ),
    )
    monkeypatch.setitem(TEXT_ENCODERS, "toy_pooled", entry)
