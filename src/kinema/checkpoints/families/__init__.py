"""Every family of models, and which of them a path belongs to."""

from pathlib import Path

from kinema.checkpoints.families.base import Family
from kinema.checkpoints.families.kinema import KINEMA
from kinema.checkpoints.families.stable_diffusion.family import STABLE_DIFFUSION
from kinema.checkpoints.families.wan.family import WAN
from kinema.checkpoints.folders import resolve_model
from kinema.checkpoints.manifest import REQUIRED_FILES
from kinema.checkpoints.shipped import SHIPPED
from kinema.errors import ModelError

FAMILIES: dict[str, Family] = {"kinema": KINEMA, "wan": WAN, "stable_diffusion": STABLE_DIFFUSION}
"""A new family of models is an entry here."""


def find_family(model: str | Path) -> tuple[Family, Path]:
    """The family of a model, and its path: `model` is "shipped", or the path of a folder or file.

    Raises `ModelError` for a path that is no model of any family.
    """
    is_file = model != SHIPPED and Path(model).is_file()
    path = Path(model) if is_file else resolve_model(model)
    for family in FAMILIES.values():
        if family.is_mine(path):
            return family, path
    raise ModelError(
        f"{path} is not a model folder of a known family ({', '.join(FAMILIES)}): a model of Kinema has "
        f"{REQUIRED_FILES}"
    )
