"""An exponential moving average of the weights, which is sampled and exported."""

import copy

import torch
from torch import nn


class EMA:
    """The averaged copy of a model, in float32 on the model's device.

    The decay at a step is min(decay, (1 + step) / (10 + step)): the horizon grows with the run, so that early
    averages forget the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        # The average shares the frozen tensors with the model.
        kept = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, kept).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the model's weights after `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [pair for pair in zip(self.model.parameters(), model.parameters()) if pair[1].requires_grad]
        averages, values = [average.data for average, _ in pairs], [value.detach() for _, value in pairs]
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in zip(self.model.buffers(), model.buffers()):
            average.copy_(value)
