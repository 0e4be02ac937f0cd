"""The oracle in the package or in a folder."""

from pathlib import Path

import torch

from kinema.checkpoints.components import load_component
from kinema.checkpoints.shipped import shipped_oracle
from kinema.models.oracle import Oracle


def load_oracle(folder: Path | None = None, *, device: torch.device | None = None) -> Oracle:
    """The oracle in `folder`, or the shipped one if None. Raises `ModelError` if it is incomplete."""
    return load_component(folder or shipped_oracle(), Oracle, device=device)
