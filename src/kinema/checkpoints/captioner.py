"""A captioner together with the oracle that supplies its input features."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kinema.checkpoints.components import load_component
from kinema.checkpoints.oracle import load_oracle
from kinema.checkpoints.shipped import SHIPPED, shipped_captioner
from kinema.checkpoints.tensors import weights_hash
from kinema.errors import ModelError
from kinema.files import content_key
from kinema.models.captioner import Caption, Captioner, clip_features
from kinema.models.oracle import Oracle
from kinema.registry import lookup


@dataclass(frozen=True, eq=False)
class CaptionerRunner:
    """A captioner and its oracle: frames in, a caption out."""

    oracle: "Oracle"
    captioner: "Captioner"

    @classmethod
    def load(cls, model: str = SHIPPED) -> "CaptionerRunner":
        """The captioner of the package ("shipped"), or the one in the folder `model`.

        A folder may contain its own oracle; otherwise the package's is used. Raises `ModelError` if the
        captioner is missing or damaged, or was trained with another oracle.
        """
        folder = shipped_captioner() if model == SHIPPED else Path(model)
        if not folder.is_dir():
            raise ModelError(
                f"no captioner in {folder}: give '{SHIPPED}' or the export of kinema train "
                "recipes/captioner.toml"
            )

        captioner = load_component(folder, Captioner)
        oracle = load_oracle(folder / "oracle" if (folder / "oracle").is_dir() else None)
        if weights_hash(oracle) != captioner.config.oracle:
            raise ModelError(
                f"{folder}: the captioner was trained with another oracle than the package's: "
                f"copy that one to {folder}/oracle"
            )
        return cls(oracle, captioner)

    @property
    def weights(self) -> str:
        """16 digits that identify the weights of both networks."""
        return content_key([weights_hash(self.captioner), self.captioner.config.oracle])[:16]

    def caption(
        self, frames: np.ndarray, fps: float, form: str, *, temperature: float = 0.0, seed: int = 0
    ) -> "Caption":
        """The caption of one clip, frames uint8 (f, h, w, 3).

        Raises `RequestError` if the clip is too short and `UnknownName` for an unknown form.
        """
        lookup(self.captioner.codec.form_ids, form, kind="form of a caption")
        features = clip_features(self.oracle, frames, fps, max_frames=self.captioner.config.num_frames)
        generator = torch.Generator().manual_seed(seed)
        return self.captioner.write(features, [form], temperature=temperature, generator=generator)[0]
