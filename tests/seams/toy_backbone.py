"""A backbone in one file and one line: two 3-D convolutions, the mean of a prompt's states, and one time for
all latents of a clip. It has no patches, no attention and no packing.
"""

from dataclasses import dataclass

import torch
from torch import nn

from kinema.models.backbone import BACKBONES, BackboneEntry
from kinema.models.conditioning import Conditioning, predict_each
from kinema.nn.embeddings import sinusoid


@dataclass(frozen=True)
class ToyConfig:
    """Sizes of the toy."""

    in_channels: int = 4
    out_channels: int = 4
    text_dim: int = 8
    text_length: int = 16
    d: int = 8


class ToyBackbone(nn.Module):
    """The prediction for latents from convolutions over the grid."""

    patch, time_per_token = (1, 1, 1), False

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config, self.text_width = config, config.text_dim
        self.in_channels, self.out_channels = config.in_channels, config.out_channels
        self.conv_in = nn.Conv3d(config.in_channels, config.d, 3, padding=1)
        self.condition = nn.Linear(config.text_dim + config.d, config.d)
        self.conv_out = nn.Conv3d(config.d, config.out_channels, 3, padding=1)

    def prepare(self, conditioning):
        """The mean state of each prompt, and the channels beside the latents."""
        means = [prompt.states.sum(0) / max(1, sum(prompt.lengths)) for prompt in conditioning.text.split()]
        return torch.stack(means), conditioning.channels

    def predict(self, latents, t, prepared, first_frame=0):
        """See `Backbone.predict`."""
        text, channels = self.prepare(prepared) if isinstance(prepared, Conditioning) else prepared
        x = latents if channels is None else torch.cat([latents, channels], dim=1)
        times = sinusoid(1000 * t.flatten(1).amax(1) if t.ndim > 1 else 1000 * t, self.config.d)
        condition = self.condition(torch.cat([text, times], dim=1))
        return self.conv_out(torch.tanh(self.conv_in(x) + condition[:, :, None, None, None]))

    def predict_packed(self, clips, t, conditioning, first_frames):
        """See `Backbone.predict_packed`."""
        return predict_each(self.predict, clips, t, conditioning, first_frames)


def register(monkeypatch):
    """Add the backbone to the table for one test."""
    monkeypatch.setitem(BACKBONES, "toy", BackboneEntry(("ToyBackbone",), ToyConfig, ToyBackbone))
