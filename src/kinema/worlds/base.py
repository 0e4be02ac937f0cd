"""The interface of a world: clips with captions and truth, and the slots and words of the captions."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from kinema.errors import ConfigError
from kinema.shapes import UInt8

FORMS = ("short", "medium", "detailed")
LANGUAGES = ("en", "zh")
CAPTION_KEYS = tuple(form + suffix for suffix in ("", "_zh") for form in FORMS)

Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with their captions (keys `CAPTION_KEYS`), their truth, which is plain JSON, and the actions of
    a world that has them: one row per frame.
    """

    frames: UInt8[np.ndarray, "f h w 3"]
    fps: float
    captions: dict[str, str]
    truth: dict[str, Any]
    actions: np.ndarray | None = None


class World(Protocol):
    """An unlimited source of clips. A clip depends only on seed, sizes and configuration."""

    name: str
    config: Any
    """The dataclass of its settings."""
    split: Split
    """The combinations of its clips: "train" leaves out what "held_out" holds; "all" has both."""

    @property
    def slots(self) -> Mapping[str, tuple[str, ...]]:
        """The values of every slot that captions and truth name. An empty one cannot be scored."""
        ...

    @property
    def vocabulary(self) -> Mapping[str, tuple[str, ...]]:
        """What the world can show, by kind, as the manifest of a model lists it."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """Every English and Chinese word of the captions."""
        ...

    def clip(self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0) -> Clip:
        """The clip of `seed`."""
        ...

    def truth(self, seed: int, *, num_frames: int, aspect: float = 1.0, fps: float = 8.0) -> dict[str, Any]:
        """The truth of the clip of `seed`, without drawing its frames.

        It has `seed`, `aspect`, the value of every slot by its name, and `objects`: each with its `role`
        ("subject" or "object") and with `tracks` of x, y, size (stage units: height 1, y down) and visible
        (fraction), one value per frame.
        """
        ...

    def caption(
        self, truth: Mapping[str, Any], form: str, language: str = "en", rng: random.Random | None = None
    ) -> str:
        """The caption of a clip with that truth. `rng` selects the wording; None: that of the clip's own."""
        ...

    def foil(self, clip: Clip, seed: int) -> tuple[str, str]:
        """A medium caption that differs from the clip's in exactly one slot, and the name of that slot."""
        ...

    def foil_values(self, truth: Mapping[str, Any], slot: str) -> list[Any]:
        """The wrong values of `slot` that the rest of the truth allows and that a medium caption names."""
        ...

    def named_slots(self, truth: Mapping[str, Any]) -> dict[str, str]:
        """The value of every slot that a medium caption of that truth determines."""
        ...

    def in_split(self, split: Split) -> "World":
        """This world with the combinations of `split`. A world that holds none out returns itself."""
        ...


@runtime_checkable
class ReadsCaptions(World, Protocol):
    """A world that reads slots from captions."""

    def read_caption(self, caption: str) -> dict[str, str | None]:
        """The value that a caption names of each slot of a medium caption; None where it names none."""
        ...


@runtime_checkable
class HasObjectMasks(World, Protocol):
    """A world that knows where its clips show objects."""

    def object_mask(
        self, clip: Clip, *, height: int, width: int, num_frames: int, fps: float = 8.0
    ) -> np.ndarray:
        """Where a clip of this world shows objects or their shadows, bool (f, h, w)."""
        ...


@runtime_checkable
class HasObjectNames(World, Protocol):
    """A world whose captions name objects."""

    @property
    def object_names(self) -> Mapping[str, tuple[str, ...]]:
        """Every English and Chinese name of each object in captions, by the object's usual name."""
        ...


@runtime_checkable
class HasPromptPairs(World, Protocol):
    """A world that writes prompts as users do, with their expansions."""

    def prompt_pair(
        self, truth: Mapping[str, Any], kind: str, language: str, rng: random.Random
    ) -> tuple[str, str]:
        """A prompt of a truth and its expansion, which has the words of the prompt in the same order.

        `kind` is one of `kinema.models.expander.PROMPT_KINDS`.
        """
        ...

    def subject_prompt(
        self, truth: Mapping[str, Any], language: str, rng: random.Random, *, with_verb: bool
    ) -> str:
        """A prompt of a truth that names the subject alone, or the subject and what it does."""
        ...

    def is_complete(self, text: str, language: str) -> bool:
        """Whether a text names once each what an expansion has to name."""
        ...


def check_slots(world: World, needed_by: str, names: Sequence[str] = ()) -> None:
    """Raise `ConfigError` if the world has no slots, or not those of `names`, which `needed_by` reads."""
    if not world.slots:
        raise ConfigError(
            f"the world '{world.name}' has no slots, and {needed_by} reads them: use a world with slots"
        )
    missing = [name for name in names if name not in world.slots]
    if missing:
        raise ConfigError(
            f"the world '{world.name}' has no slot {' and no slot '.join(missing)}, which {needed_by} reads: "
            "use the world 'stage'"
        )
