"""Folders of the models in the package."""

from pathlib import Path

SHIPPED = "shipped"
"""The name of the model in the package, accepted wherever a model folder is."""

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped_model() -> Path:
    """Folder of the text-to-video model."""
    return WEIGHTS / "kinema-nano"


def shipped_oracle() -> Path:
    """Folder of the oracle, which reads the attributes and tracks of a clip."""
    return WEIGHTS / "oracle"


def shipped_captioner() -> Path:
    """Folder of the captioner."""
    return WEIGHTS / "captioner"


def shipped_expander() -> Path:
    """Folder of the prompt expander."""
    return WEIGHTS / "expander"
