"""The manifest of a model folder (kinema.json): what sampling needs beyond the networks, and all hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kinema.config import from_dict
from kinema.errors import ConfigError, ModelError
from kinema.files import read_json, sha256_of
from kinema.registry import lookup

INDEX = "model_index.json"
MANIFEST = "kinema.json"
CARD = "card.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
REQUIRED_FILES = (
    f"{MANIFEST}, transformer/{{{CONFIG},{DIFFUSERS_WEIGHTS}}}, vae/{{{CONFIG},{DIFFUSERS_WEIGHTS}}}, "
    f"text_encoder/{{{CONFIG},{WEIGHTS}}} and tokenizer/{TOKENIZER}"
)
"""Files of a model folder, for error messages."""

DIFFUSERS_SCHEDULERS: dict[str, dict[str, Any]] = {
    "linear": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    "cosine": {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"},
    "ddpm": {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 2e-2},
    "ddpm_table": {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 2e-2,
    },
    "latent_diffusion": {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
}
"""diffusers' scheduler for each noise schedule."""
DIFFUSERS_PREDICTIONS = {
    "noise": "epsilon",
    "x0": "sample",
    "v": "v_prediction",
    "velocity": "flow_prediction",
}
"""diffusers' name of each prediction."""
SAMPLER_NAMES = dict.fromkeys(("ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"))
"""The keys of `kinema.diffusion.samplers.SAMPLERS`, for requests that are checked without torch."""


@dataclass(frozen=True)
class Manifest:
    """The contents of kinema.json.

    Sides are in pixels, lengths in frames. Raises `ConfigError` and `UnknownName`.
    """

    name: str
    licence: str
    fps: float
    sides: tuple[int, int, int]
    """Trained heights and widths: `min_side`, `max_side` and `side_multiple`, which divides both."""
    frames: tuple[int, int]
    """Trained lengths: `min_frames` and `max_frames`."""
    default_size: tuple[int, int]
    """Height and width of a video if the request gives none."""
    default_frames: int
    schedule: str = "linear"
    prediction: str = "velocity"
    sampler: str = "euler"
    steps: int = 30
    guidance: float = 5.0
    shift: float = 1.0
    time_per_token: bool = True
    """Whether training gave every token its own diffusion time.

    If not, known latents are as noisy as the others.
    """
    pictures_in_channels: bool = False
    """Whether given pictures enter in channels beside the latents, not as known latents."""
    vocabulary: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The world's words by kind: nouns, verbs, grounds, skies and so on."""
    max_objects: int | None = None
    """Objects of a video at most. None: not known."""
    object_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Every English and Chinese name of each object in captions."""
    sha256: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every other file of the folder; written by `save_model`."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Cost of the training and measured results; plain JSON."""

    def __post_init__(self) -> None:
        lookup(DIFFUSERS_SCHEDULERS, self.schedule, kind="noise schedule")
        lookup(DIFFUSERS_PREDICTIONS, self.prediction, kind="prediction")

        are_multiples = self.side_multiple >= 1 and not (
            self.min_side % self.side_multiple or self.max_side % self.side_multiple
        )
        if not (are_multiples and 1 <= self.min_side <= self.max_side):
            raise ConfigError(
                f"sides={list(self.sides)} must be minimum, maximum and a number that divides both"
            )
        if not 1 <= self.min_frames <= self.default_frames <= self.max_frames:
            raise ConfigError(
                f"frames={list(self.frames)} must be minimum and maximum, "
                f"with default_frames={self.default_frames} between them"
            )
        if self.fps <= 0 or self.steps < 1 or self.shift <= 0:
            raise ConfigError(
                f"fps={self.fps:g} and shift={self.shift:g} must be positive, steps={self.steps} at least 1"
            )

    @property
    def min_side(self) -> int:
        """Least trained height and width."""
        return self.sides[0]

    @property
    def max_side(self) -> int:
        """Greatest trained height and width."""
        return self.sides[1]

    @property
    def side_multiple(self) -> int:
        """Heights and widths of the canvas are multiples of this."""
        return self.sides[2]

    @property
    def min_frames(self) -> int:
        """Least trained length."""
        return self.frames[0]

    @property
    def max_frames(self) -> int:
        """Greatest trained length."""
        return self.frames[1]


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder. Raises `ModelError` if there is none or kinema.json is invalid."""
    if not (folder / MANIFEST).is_file():
        raise ModelError(
            f"{folder} is not a model folder, there is no {MANIFEST}: a model has {REQUIRED_FILES}"
        )
    values = read_json(folder / MANIFEST)
    card = values.pop("card", {})
    try:
        return replace(from_dict(Manifest, values), card=card)
    except ConfigError as error:
        raise ModelError(f"{folder / MANIFEST}: {error}") from None


def load_card(folder: Path) -> dict[str, Any]:
    """The card.json that training wrote beside a component. Raises `ModelError`."""
    return read_json(folder / CARD)


def verify_hashes(folder: Path) -> int:
    """The number of files whose hashes match the manifest.

    Raises `ModelError` listing missing, changed and unlisted files.
    """
    listed = load_manifest(folder).sha256
    present = set(files_below(folder)) - {MANIFEST}
    changed = [name for name in sorted(present & set(listed)) if sha256_of(folder / name) != listed[name]]
    problems = {
        "missing": sorted(set(listed) - present),
        "changed": changed,
        "not listed": sorted(present - set(listed)),
    }
    if any(problems.values()) or not listed:
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ModelError(f"{folder} does not match its {MANIFEST}: {found or 'no hashes'}")
    return len(listed)


def model_hash(folder: Path) -> str:
    """12 hexadecimal digits that identify a model: a hash of the hashes in its manifest.

    The files are not read.
    """
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(load_manifest(folder).sha256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def files_below(folder: Path) -> list[str]:
    """Paths of the files below `folder`, relative to it; hidden files and folders are left out."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(name.startswith(".") for name in path.parts))
