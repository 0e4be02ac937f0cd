"""Worlds: unlimited procedural clips with exact captions and truth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kinema.config import from_dict, merge, to_dict
from kinema.registry import lookup
from kinema.worlds.base import (
    CAPTION_KEYS,
    Clip,
    HasObjectMasks,
    HasObjectNames,
    HasPromptPairs,
    ReadsCaptions,
    Split,
    World,
    check_slots,
)
from kinema.worlds.stage.world import StageConfig, StageWorld

__all__ = [
    "CAPTION_KEYS",
    "WORLDS",
    "Clip",
    "HasObjectMasks",
    "HasObjectNames",
    "HasPromptPairs",
    "ReadsCaptions",
    "Split",
    "World",
    "WorldConfig",
    "WorldEntry",
    "check_slots",
    "make_world",
    "with_world_table",
]


class WorldEntry(NamedTuple):
    """The dataclass of a world's settings, and the world that is made from one."""

    config_class: type[Any]
    world_class: type[Any]


WORLDS: dict[str, WorldEntry] = {"stage": WorldEntry(StageConfig, StageWorld)}


@dataclass(frozen=True)
class WorldConfig:
    """A row of `WORLDS` and its settings. As a table of a recipe: `name`, and the settings beside it."""

    name: str = "stage"
    settings: Any = field(default_factory=StageConfig)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "world") -> "WorldConfig":
        """The world of a table. Raises `UnknownName` for its name, and `ConfigError` for its settings."""
        name = str(table.get("name", "stage"))
        settings = {key: value for key, value in table.items() if key != "name"}
        return cls(name, from_dict(lookup(WORLDS, name, kind="world").config_class, settings, where))

    def to_table(self) -> dict[str, Any]:
        """The inverse of `from_table`."""
        return {"name": self.name, **to_dict(self.settings)}


def make_world(config: WorldConfig) -> World:
    """The world that `config` describes. Raises `ConfigError` for settings that allow no clip."""
    world: World = lookup(WORLDS, config.name, kind="world").world_class(config.settings)
    return world


def with_world_table(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a recipe with the world as one table.

    Version 0.1.0 has `world = "stage"` and the settings in [stage] (a decoder's second world in [wide]).
    Where a recipe has both, the old ones win.
    """
    tables = dict(recipe)
    if isinstance(tables.get("world"), str):
        tables["world"] = {"name": tables["world"]}
    if "stage" not in tables:
        return tables

    old = {"world": {"name": "stage", **tables.pop("stage")}}
    if "wide" in tables:
        old["wide"] = {"name": "stage"}
    return merge(tables, old)
