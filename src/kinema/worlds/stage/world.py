"""The stage: named sprites move on grounds under skies, physically right, with exact captions and truth for every clip."""

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from kinema.errors import ConfigError, RequestError
from kinema.registry import lookup
from kinema.worlds.base import Clip, Vocabulary
from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.render import render
from kinema.worlds.stage.scene import CAMERAS_OF, HORIZONTAL, PAIRED, Action, Scene, move, sample_scene
from kinema.worlds.stage.scenery import GROUNDS, SKIES, sample_scenery
from kinema.worlds.stage.truth import truth_of

CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out", "follow")
VERBS = tuple(grammar.VERBS)
UNDIRECTED = ("fall", "rise", "grow", "shrink")
# What a noun does by nature is shown more often than what anything can do.
VERB_WEIGHT = {
    "spin": 0.3,
    "grow": 0.25,
    "shrink": 0.2,
    "slide": 0.5,
    "fall": 0.6,
    "pass": 0.7,
    "knock": 0.7,
    "chase": 0.7,
}
CAMERA_WEIGHT = {"still": 4.0, "follow": 1.5}
COUNT_WEIGHT = {1: 0.7, 2: 0.18, 3: 0.12}
SIZE_WEIGHT = {"small": 0.25, "regular": 0.5, "large": 0.25}
HELD_OUT_VERBS, HELD_OUT_GROUNDS = 0.15, 0.10
IMAGE_SPAN = 2.0

Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True)
class StageConfig:
    """What a stage may show. `nouns` is a number (the first so many of the table) or names; an empty tuple of a slot means all.

    `split` leaves out ("train") or insists on ("held_out") the noun-verb and noun-ground pairs reserved for measuring composition:
    15 % and 10 % of the pairs, chosen by a hash of the names with `salt`, so they stay the same whatever else is configured.
    Raises `UnknownName` for a name in no table and `ConfigError` for a stage on which nothing can happen.
    """

    nouns: int | tuple[str, ...] = 96
    verbs: tuple[str, ...] = ()
    grounds: tuple[str, ...] = ()
    skies: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    max_objects: int = 3
    split: Split = "train"
    salt: str = "stage"

    def __post_init__(self) -> None:
        if isinstance(self.nouns, int):
            if not 1 <= self.nouns <= len(NOUNS):
                raise ConfigError(
                    f"nouns={self.nouns} is outside 1..{len(NOUNS)}, the number of nouns in the table"
                )
        else:
            _check(self.nouns, NOUNS, "noun")
        _check(self.verbs, grammar.VERBS, "verb")
        _check(self.grounds, GROUNDS, "ground")
        _check(self.skies, SKIES, "sky")
        _check(self.cameras, dict.fromkeys(CAMERAS), "camera")
        if not 1 <= self.max_objects <= 3:
            raise ConfigError(f"max_objects={self.max_objects} is outside 1..3")
        lookup(dict.fromkeys(("train", "held_out", "all")), self.split, kind="split")

    @property
    def noun_names(self) -> tuple[str, ...]:
        """The nouns by name."""
        return tuple(NOUNS)[: self.nouns] if isinstance(self.nouns, int) else self.nouns


def _check(names: Iterable[str], table: Mapping[str, Any], kind: str) -> None:
    for name in names:
        lookup(table, name, kind=kind)


@cache
def is_held_out(noun: str, value: str, *, kind: Literal["verb", "ground"], salt: str) -> bool:
    """Whether the pair of `noun` with a verb or a ground is reserved for the held-out split: a stable hash of the names decides."""
    digest = hashlib.sha256(f"{salt}|{kind}|{noun}|{value}".encode()).digest()
    share = HELD_OUT_VERBS if kind == "verb" else HELD_OUT_GROUNDS
    return int.from_bytes(digest[:8], "big") / 2**64 < share


class StageWorld:
    """Clips of named sprites on a stage. Stateless: `clip` is a pure function of the seed, the sizes and the configuration."""

    name = "stage"

    def __init__(self, config: StageConfig | None = None):
        self.config = config = config or StageConfig()
        self._nouns = config.noun_names
        self._verbs = config.verbs or VERBS
        self._grounds = config.grounds or tuple(GROUNDS)
        self._skies = config.skies or tuple(SKIES)
        self._cameras = config.cameras or CAMERAS
        self._partners = {
            (noun, verb): self._partners_of(noun, verb) for noun in self._nouns for verb in PAIRED
        }
        self._plans = self._possible()
        self._verbs_of: dict[str, list[str]] = {}
        for noun, verb in self._plans:
            self._verbs_of.setdefault(noun, []).append(verb)
        self._subjects = tuple(self._verbs_of)
        if not self._plans:
            raise ConfigError(
                f"nothing can happen on this stage: none of the nouns {', '.join(self._nouns)} can {', '.join(self._verbs)} "
                f"in the split '{config.split}' with these grounds and cameras; add nouns or verbs, or use split 'all'"
            )

    def clip(self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0) -> Clip:
        """The clip of `seed`. The scene depends on the seed and on `width / height`; the other sizes only say how it is shown.

        A clip of one frame is a picture: it shows the scene at a time drawn from the seed.
        """
        if min(height, width) < 8 or num_frames < 1 or fps <= 0:
            raise RequestError(
                f"cannot show {num_frames} frames of {width}x{height} at {fps} fps: use 1 frame or more of 8x8 or larger"
            )
        start = random.Random(seed * 2 + 1).uniform(0, IMAGE_SPAN) if num_frames == 1 else 0.0
        times = start + np.arange(num_frames) / fps
        scene, motions, truth = self._happening(seed, width / height, times, fps)
        captions = {
            form + suffix: self.caption(truth, form, language)
            for language, suffix in (("en", ""), ("zh", "_zh"))
            for form in grammar.FORMS
        }
        return Clip(render(scene, motions, times, height, width), fps, captions, truth)

    def truth(self, seed: int, *, num_frames: int, aspect: float = 1.0, fps: float = 8.0) -> dict[str, Any]:
        """The truth of a clip of `seed`, without its frames: all that captions are made from."""
        return self._happening(seed, aspect, np.arange(num_frames) / fps, fps)[2]

    def _happening(
        self, seed: int, aspect: float, times: np.ndarray, fps: float
    ) -> tuple[Scene, list[Any], dict[str, Any]]:
        scene = self._scene(seed, aspect)
        motions = [move(actor, scene.camera, times) for actor in scene.actors]
        return scene, motions, truth_of(scene, motions, times, seed, fps)

    def image(self, seed: int, *, height: int, width: int) -> Clip:
        """The clip of `seed` as a single frame."""
        return self.clip(seed, height=height, width=width, num_frames=1)

    def caption(
        self, truth: Mapping[str, Any], form: str, language: str = "en", rng: random.Random | None = None
    ) -> str:
        """The caption of a clip with that truth; without `rng` the wording is the one that the clip itself carries."""
        return grammar.caption(
            truth, form, language, rng or random.Random(f"{truth['seed']}|{form}|{language}")
        )

    def foil(self, clip: Clip, seed: int, form: str = "medium") -> tuple[str, str]:
        """A caption that is wrong in one slot and otherwise worded as the clip's own, and the name of that slot.

        The slot and its wrong value are the same whatever the `form`; a short caption may not say them.
        """
        rng = random.Random(seed)
        truth = clip.truth
        options = {slot: values for slot in grammar.FOIL_SLOTS if (values := self._others(truth, slot))}
        if not options:
            raise ConfigError(
                "no slot of this clip has another value on this stage: allow more nouns, grounds or skies"
            )
        slot = rng.choice(list(options))
        return self.caption({**truth, slot: rng.choice(options[slot])}, form), slot

    def vocabulary(self) -> Vocabulary:
        """The names and words of this stage."""
        return Vocabulary(
            nouns=self._nouns,
            verbs=self._verbs,
            grounds=self._grounds,
            skies=self._skies,
            cameras=self._cameras,
            directions=("left", "right", "clockwise", "counterclockwise", "up", "down"),
            sizes=tuple(grammar.SIZES),
            words=grammar.words_of(list(self._nouns)),
        )

    def _allowed(self, noun: str, value: str, kind: Literal["verb", "ground"]) -> bool:
        return self.config.split != "train" or not is_held_out(noun, value, kind=kind, salt=self.config.salt)

    def _partners_of(self, noun: str, verb: str) -> tuple[str, ...]:
        if verb == "pass":
            return tuple(n for n in self._nouns if n != noun and "big" in NOUNS[n].traits)
        if verb == "knock":
            return tuple(
                n
                for n in self._nouns
                if n != noun and NOUNS[n].mass <= NOUNS[noun].mass and "rooted" not in NOUNS[n].traits
            )
        if verb == "chase":
            return tuple(
                n for n in self._nouns if n != noun and NOUNS[n].locomotion == NOUNS[noun].locomotion
            )
        return ()

    def _partners_on(self, noun: str, verb: str, ground: str) -> tuple[str, ...]:
        """The partners that a training clip may show on that ground; all of them in the other splits."""
        partners = self._partners[noun, verb]
        return (
            tuple(n for n in partners if self._allowed(n, ground, "ground"))
            if self.config.split == "train"
            else partners
        )

    def _possible(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(noun, verb) -> the grounds on which the split lets it happen."""
        held_out = self.config.split == "held_out"
        plans = {}
        for noun in self._nouns:
            for verb in NOUNS[noun].verbs:
                if verb not in self._verbs or not set(CAMERAS_OF[verb]) & set(self._cameras):
                    continue
                if verb in PAIRED and (self.config.max_objects < 2 or not self._partners[noun, verb]):
                    continue
                if held_out:
                    new_verb = is_held_out(noun, verb, kind="verb", salt=self.config.salt)
                    grounds = tuple(
                        g
                        for g in self._grounds
                        if new_verb or is_held_out(noun, g, kind="ground", salt=self.config.salt)
                    )
                elif self._allowed(noun, verb, "verb"):
                    grounds = tuple(g for g in self._grounds if self._allowed(noun, g, "ground"))
                else:
                    continue
                if verb in PAIRED and not held_out:
                    grounds = tuple(g for g in grounds if self._partners_on(noun, verb, g))
                if grounds:
                    plans[noun, verb] = grounds
        return plans

    def _scene(self, seed: int, aspect: float) -> Scene:
        rng = random.Random(seed)
        noun = rng.choice(self._subjects)
        verbs = self._verbs_of[noun]
        verb = rng.choices(verbs, [VERB_WEIGHT.get(verb, 2.0) for verb in verbs])[0]
        ground = rng.choice(self._plans[noun, verb])
        other = rng.choice(self._partners_on(noun, verb, ground)) if verb in PAIRED else None
        sky = rng.choice(self._skies)
        counts = range(1, 1 + (1 if other else self.config.max_objects))
        count = rng.choices(counts, [COUNT_WEIGHT[c] for c in counts])[0]
        size = (
            "regular"
            if verb in ("grow", "shrink")
            else rng.choices(list(SIZE_WEIGHT), list(SIZE_WEIGHT.values()))[0]
        )
        cameras = [camera for camera in CAMERAS_OF[verb] if camera in self._cameras]
        camera = rng.choices(cameras, [CAMERA_WEIGHT.get(camera, 0.7) for camera in cameras])[0]
        scenery = sample_scenery(ground, sky, aspect, random.Random(f"{seed}|scenery"))
        return sample_scene(Action(verb, noun, other, count, size, camera), scenery, aspect, rng)

    def _others(self, truth: Mapping[str, Any], slot: str) -> list[Any]:
        """The other values of `slot` that the rest of the truth allows and that a medium caption says aloud."""
        noun, verb, partner, value = truth["noun"], truth["verb"], truth["other"], truth[slot]
        others: list[Any] = []
        if slot == "noun":
            others = [
                n
                for n in self._nouns
                if verb in NOUNS[n].verbs and (partner is None or partner in self._partners[n, verb])
            ]
        elif slot == "verb" and truth["tail"] is None:
            # Verbs that take the same slots: the sentence keeps its direction, its partner and its camera.
            kin = next((group for group in (HORIZONTAL, PAIRED, UNDIRECTED) if verb in group), ())
            others = [
                v
                for v in self._verbs
                if v in kin and v in NOUNS[noun].verbs and truth["camera"] in CAMERAS_OF[v]
            ]
            others = [v for v in others if partner is None or partner in self._partners[noun, v]]
        elif slot == "direction":
            pairs = (("left", "right"), ("clockwise", "counterclockwise"))
            others = [v for pair in pairs if value in pair for v in pair]
        elif slot == "ground":
            others = list(self._grounds)
        elif slot == "sky":
            others = list(self._skies)
        elif slot == "size" and verb not in ("grow", "shrink"):
            others = ["small", "large"]
        elif slot == "count":
            others = list(range(1, 1 + (1 if partner else self.config.max_objects)))
        elif slot == "camera" and not truth["camera_stops"]:
            others = [c for c in CAMERAS_OF[verb] if c in self._cameras and c != "still"]
        return [v for v in others if v != value]
