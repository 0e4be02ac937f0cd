"""Recipe keys of earlier versions, so that old recipes and the checkpoints of old runs stay readable."""

from collections.abc import Mapping
from typing import Any

from kinema.config import merge
from kinema.worlds import with_world_table

RENAMED_KEYS = {
    "part": "task",
    "stages": "periods",
    "diffusion.time_law": "diffusion.timestep_sampling",
    "diffusion.time_shift": "diffusion.timestep_shift",
    "model.fold": "model.patch_size",
    "recompute": "activation_checkpointing",
    "slots": "slot_loss",
    "ways": "foil_loss",
    "loss.place": "loss.position",
}
"""Old key to new key, each with its table. Keys of version 0.1.0."""


def with_current_keys(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a recipe with every key of an earlier version under its present name.

    Where a recipe has a key under both names, the old one wins: an old recipe then starts from a current one.
    """
    current = with_world_table(tables)

    for old, new in RENAMED_KEYS.items():
        *above, old_name = old.split(".")
        new_name = new.rpartition(".")[2]
        if not above:
            current = _renamed(current, old_name, new_name)
        elif isinstance(inner := current.get(above[0]), Mapping):
            current[above[0]] = _renamed(inner, old_name, new_name)
    return current


def _renamed(table: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The table with the value of `old` under the key `new`."""
    others = {key: value for key, value in table.items() if key != old}
    return merge(others, {new: table[old]}) if old in table else others
