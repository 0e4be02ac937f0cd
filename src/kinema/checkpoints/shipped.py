"""Folders of the models inside the package."""

from pathlib import Path

SHIPPED = "shipped"
"""The name that stands for a model inside the package wherever a model folder is accepted."""

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped_model() -> Path:
    """Folder of the text-to-video model."""
    return WEIGHTS / "kinema-nano"


def shipped_oracle() -> Path:
    """Folder of the oracle, which reads the slots and tracks of a clip."""
    return WEIGHTS / "oracle"


def shipped_captioner() -> Path:
    """Folder of the captioner."""
    return WEIGHTS / "captioner"


def shipped_expander() -> Path:
    """Folder of the prompt expander."""
    return WEIGHTS / "expander"
