"""The captioner of the package or of a folder, with the oracle that it looks through."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinema.checkpoints.shipped import SHIPPED, shipped_captioner
from kinema.errors import ModelError
from kinema.files import content_key

if TYPE_CHECKING:
    from kinema.models.captioner import Captioner, Written
    from kinema.models.oracle import Oracle


@dataclass(frozen=True, eq=False)
class CaptionerRunner:
    """A captioner with the oracle that it looks through."""

    oracle: "Oracle"
    captioner: "Captioner"

    @classmethod
    def load(cls, model: str = SHIPPED) -> "CaptionerRunner":
        """The captioner of the package, or of a folder, which holds its oracle too unless that is the package's own.

        Raises `ModelError` when it is not whole, or was trained with another oracle.
        """
        from kinema.checkpoints.folders import load_component, load_oracle
        from kinema.checkpoints.tensors import weights_hash
        from kinema.models.captioner import Captioner

        folder = shipped_captioner() if model == SHIPPED else Path(model)
        if not folder.is_dir():
            raise ModelError(
                f"no captioner in {folder}: give '{SHIPPED}' or the export of kinema train recipes/captioner.toml"
            )
        captioner = load_component(folder, Captioner)
        oracle = load_oracle(folder / "oracle" if (folder / "oracle").is_dir() else None)
        if weights_hash(oracle) != captioner.config.oracle:
            raise ModelError(
                f"{folder}: the captioner was trained with another oracle than the package's: put it into {folder}/oracle"
            )
        return cls(oracle, captioner)

    @property
    def weights(self) -> str:
        """A hash of all that its captions depend on."""
        from kinema.checkpoints.tensors import weights_hash

        return content_key([weights_hash(self.captioner), self.captioner.config.oracle])[:16]

    def describe(
        self, frames: np.ndarray, fps: float, form: str, *, temperature: float = 0.0, seed: int = 0
    ) -> "Written":
        """The caption of one clip, uint8 (f, h, w, 3). Raises `RequestError` when it is too short, `UnknownName` for an unknown form."""
        import torch

        from kinema.models.captioner import clip_features
        from kinema.registry import lookup

        lookup(self.captioner.codec.form_ids, form, kind="form of a caption")
        seen = clip_features(self.oracle, frames, fps, max_frames=self.captioner.config.num_frames)
        return self.captioner.write(
            seen, [form], temperature=temperature, generator=torch.Generator().manual_seed(seed)
        )[0]
