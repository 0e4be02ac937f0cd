"""Worlds: unlimited procedural clips with exact captions and truth."""

from kinema.worlds.base import CAPTION_KEYS, Clip, Vocabulary, World
from kinema.worlds.stage.world import StageConfig, StageWorld, is_held_out

WORLDS: dict[str, type] = {"stage": StageWorld}

__all__ = [
    "CAPTION_KEYS",
    "WORLDS",
    "Clip",
    "StageConfig",
    "StageWorld",
    "Vocabulary",
    "World",
    "is_held_out",
]
