"""An exponential moving average of the weights: what is sampled, exported and shipped."""

import copy

import torch
from torch import nn


class EMA:
    """The averaged copy of a model, in float32 on the model's device.

    The decay at a step is min(decay, (1 + step) / (10 + step)): the horizon grows with the run, and early samples are not
    the first weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        # What is not trained is not copied: the average has the same tensors.
        kept = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, kept).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model as it stands after `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [pair for pair in zip(self.model.parameters(), model.parameters()) if pair[1].requires_grad]
        averages, values = [average.data for average, _ in pairs], [value.detach() for _, value in pairs]
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in zip(self.model.buffers(), model.buffers()):
            average.copy_(value)
