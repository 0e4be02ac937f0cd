"""The stage: named sprites that move by simple physics, with exact captions, tracks and contacts."""

from kinema.worlds.stage.world import StageConfig, StageWorld, is_held_out

__all__ = ["StageConfig", "StageWorld", "is_held_out"]
