"""The stage: named sprites move on grounds under skies by physical laws, with exact captions and truth."""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np

from kinema.errors import ConfigError, RequestError
from kinema.registry import lookup
from kinema.worlds.base import Clip, Split
from kinema.worlds.stage import grammar, short_prompts
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.parse import NAMED_DIRECTIONS, parse_caption
from kinema.worlds.stage.render import render
from kinema.worlds.stage.sampling import sample_scene
from kinema.worlds.stage.scene import Action, Scene, move
from kinema.worlds.stage.scenery import GROUNDS, SKIES, sample_scenery
from kinema.worlds.stage.truth import truth_of
from kinema.worlds.stage.verbs import VERBS, VERBS_OF

CAMERAS = ("still", "pan_left", "pan_right", "zoom_in", "zoom_out", "follow")
OPPOSITES = (("left", "right"), ("clockwise", "counterclockwise"))
PAIRED = tuple(name for name, verb in VERBS.items() if verb.kind == "paired")
CAMERA_WEIGHT = {"still": 4.0, "follow": 1.5}
COUNT_WEIGHT = {1: 0.7, 2: 0.18, 3: 0.12}
SIZE_WEIGHT = {"small": 0.25, "regular": 0.5, "large": 0.25}
HELD_OUT_VERBS, HELD_OUT_GROUNDS = 0.15, 0.10
IMAGE_SPAN = 2.0
"""Seconds from the start of the scene from which the time of an image is drawn."""
OBJECT_DIFFERENCE = 24
"""A pixel shows an object where a channel differs by more than this (of 255) from the backdrop."""


@dataclass(frozen=True)
class StageConfig:
    """What a stage may show.

    `nouns` is a number (the first rows of the table) or names; an empty tuple means all.

    15 % of the noun-verb pairs and 10 % of the noun-ground pairs are held out to measure composition. A hash
    of the names and `salt` selects them, so other settings do not change them. The split "train" excludes
    clips of held-out pairs, "held_out" contains nothing else, and "all" contains both.

    Raises `UnknownName` for a name that is not in its table, and `ConfigError` for a number out of range.
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
                raise ConfigError(f"nouns={self.nouns} is out of range: use 1 to {len(NOUNS)}")
        else:
            _check_names(self.nouns, NOUNS, "noun")
        _check_names(self.verbs, VERBS, "verb")
        _check_names(self.grounds, GROUNDS, "ground")
        _check_names(self.skies, SKIES, "sky")
        _check_names(self.cameras, dict.fromkeys(CAMERAS), "camera")

        if not 1 <= self.max_objects <= 3:
            raise ConfigError(f"max_objects={self.max_objects} is out of range: use 1 to 3")
        lookup(dict.fromkeys(("train", "held_out", "all")), self.split, kind="split")

    @property
    def noun_names(self) -> tuple[str, ...]:
        """The names of the nouns."""
        return tuple(NOUNS)[: self.nouns] if isinstance(self.nouns, int) else self.nouns


def _check_names(names: Iterable[str], table: Mapping[str, Any], kind: str) -> None:
    for name in names:
        lookup(table, name, kind=kind)


@cache
def is_held_out(noun: str, value: str, *, kind: Literal["verb", "ground"], salt: str) -> bool:
    """Whether the pair of `noun` and a verb or ground is held out, by a hash of the names and `salt`."""
    digest = hashlib.sha256(f"{salt}|{kind}|{noun}|{value}".encode()).digest()
    share = HELD_OUT_VERBS if kind == "verb" else HELD_OUT_GROUNDS
    return int.from_bytes(digest[:8], "big") / 2**64 < share


class StageWorld:
    """Clips of named sprites on a stage. A clip depends only on the seed, the sizes and the configuration.

    Raises `ConfigError` for a configuration in which no noun can do anything.
    """

    name = "stage"
    prompt_pair = staticmethod(short_prompts.prompt_pair)
    subject_prompt = staticmethod(short_prompts.subject_prompt)
    is_complete = staticmethod(short_prompts.is_complete)

    def __init__(self, config: StageConfig | None = None):
        self.config = config = config or StageConfig()
        self.split = config.split
        self._nouns = config.noun_names
        self._verbs = config.verbs or tuple(VERBS)
        self._grounds = config.grounds or tuple(GROUNDS)
        self._skies = config.skies or tuple(SKIES)
        self._cameras = config.cameras or CAMERAS
        self._partners = {
            (noun, verb): self._partners_of(noun, verb) for noun in self._nouns for verb in PAIRED
        }
        self._grounds_of = self._allowed_grounds()
        self._verbs_of: dict[str, list[str]] = {}
        for noun, verb in self._grounds_of:
            self._verbs_of.setdefault(noun, []).append(verb)
        self._subjects = tuple(self._verbs_of)

        if not self._subjects:
            raise ConfigError(
                f"nothing can happen on this stage: none of the nouns {', '.join(self._nouns)} can "
                f"{', '.join(self._verbs)} in the split '{config.split}' with these grounds and cameras; "
                "add nouns or verbs, or use split 'all'"
            )

    def clip(self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0) -> Clip:
        """The clip of `seed`. The scene depends on the seed and the aspect ratio only.

        A clip of one frame shows the scene at a time drawn from the seed. Raises `RequestError` for sizes out
        of range.
        """
        if min(height, width) < 8 or num_frames < 1 or fps <= 0:
            raise RequestError(
                f"{num_frames} frames of {width}x{height} at {fps} fps cannot be drawn: "
                "use at least 1 frame of at least 8x8 at more than 0 fps"
            )

        times = self._times(seed, num_frames, fps)
        scene, motions, truth = self._simulate(seed, width / height, times, fps)

        captions = {
            form + suffix: self.caption(truth, form, language)
            for language, suffix in (("en", ""), ("zh", "_zh"))
            for form in grammar.FORMS
        }
        return Clip(render(scene, motions, times, height, width), fps, captions, truth)

    def backdrop(
        self, seed: int, *, height: int, width: int, num_frames: int, fps: float = 8.0
    ) -> np.ndarray:
        """The clip of `seed` without objects and shadows, uint8 (num_frames, height, width, 3)."""
        scene = replace(self._scene(seed, width / height), actors=())
        times = self._times(seed, num_frames, fps)
        if scene.camera.kind != "still":
            return render(scene, [], times, height, width)
        return np.broadcast_to(render(scene, [], times[:1], height, width), (num_frames, height, width, 3))

    def object_mask(
        self, clip: Clip, *, height: int, width: int, num_frames: int, fps: float = 8.0
    ) -> np.ndarray:
        """Where a clip of this stage shows objects or their shadows, bool (f, h, w).

        The sizes are those that the clip was drawn with. See `OBJECT_DIFFERENCE`.
        """
        empty = self.backdrop(clip.truth["seed"], height=height, width=width, num_frames=num_frames, fps=fps)
        return np.abs(clip.frames.astype(np.int16) - empty).max(axis=-1) > OBJECT_DIFFERENCE

    def truth(self, seed: int, *, num_frames: int, aspect: float = 1.0, fps: float = 8.0) -> dict[str, Any]:
        """The truth of the clip of `seed`, without drawing its frames. Captions are written from it."""
        return self._simulate(seed, aspect, np.arange(num_frames) / fps, fps)[2]

    @staticmethod
    def _times(seed: int, num_frames: int, fps: float) -> np.ndarray:
        """Seconds of the frames of a clip. The time of an image is drawn from `seed`."""
        start = random.Random(seed * 2 + 1).uniform(0, IMAGE_SPAN) if num_frames == 1 else 0.0
        return start + np.arange(num_frames) / fps

    def _simulate(
        self, seed: int, aspect: float, times: np.ndarray, fps: float
    ) -> tuple[Scene, list[Any], dict[str, Any]]:
        scene = self._scene(seed, aspect)
        motions = [move(actor, scene.camera, times) for actor in scene.actors]
        return scene, motions, truth_of(scene, motions, times, seed, fps)

    def caption(
        self, truth: Mapping[str, Any], form: str, language: str = "en", rng: random.Random | None = None
    ) -> str:
        """The caption of a clip with that truth.

        Without `rng`, the wording is that of the clip's own captions.

        Raises `RequestError` for an unknown form or language.
        """
        return grammar.caption(
            truth, form, language, rng or random.Random(f"{truth['seed']}|{form}|{language}")
        )

    def foil(self, clip: Clip, seed: int) -> tuple[str, str]:
        """A medium caption that is wrong in one slot and otherwise equal to the clip's, and that slot's name.

        Raises `ConfigError` if no slot has another value on this stage.
        """
        rng = random.Random(seed)
        truth = clip.truth

        values = {slot: self.foil_values(truth, slot) for slot in grammar.FOIL_SLOTS}
        options = {slot: found for slot, found in values.items() if found}
        if not options:
            raise ConfigError(
                "no slot of this clip has another value on this stage: allow more nouns, grounds or skies"
            )

        slot = rng.choice(list(options))
        return self.caption({**truth, slot: rng.choice(options[slot])}, "medium"), slot

    @cached_property
    def vocabulary(self) -> dict[str, tuple[str, ...]]:
        """What this stage can show."""
        return {
            "nouns": self._nouns,
            "verbs": self._verbs,
            "grounds": self._grounds,
            "skies": self._skies,
            "cameras": self._cameras,
            "directions": ("left", "right", "clockwise", "counterclockwise", "up", "down"),
            "sizes": tuple(grammar.SIZES),
        }

    @property
    def object_names(self) -> dict[str, tuple[str, ...]]:
        """Singular, plural and Chinese names of each noun."""
        nouns = [NOUNS[name] for name in self._nouns]
        return {noun.name: (*noun.words, *map(grammar.plural, noun.words), noun.chinese) for noun in nouns}

    @cached_property
    def slots(self) -> dict[str, tuple[str, ...]]:
        """The values of every slot of the truth."""
        known = self.vocabulary
        return {
            "noun": known["nouns"],
            "count": tuple(str(count) for count in range(1, self.config.max_objects + 1)),
            "verb": known["verbs"],
            "direction": (*known["directions"], "none"),
            "ground": known["grounds"],
            "sky": known["skies"],
            "size": known["sizes"],
            "camera": known["cameras"],
        }

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word of the captions."""
        return grammar.words_of(list(self._nouns))

    def named_slots(self, truth: Mapping[str, Any]) -> dict[str, str]:
        """The value of every slot that captions of a clip with that truth determine.

        The directions up, down and none are part of the verb.
        """
        is_named = truth["direction"] in NAMED_DIRECTIONS
        return {slot: str(truth[slot]) for slot in self.slots if slot != "direction" or is_named}

    def read_caption(self, caption: str) -> dict[str, str | None]:
        """The values of `CAPTION_SLOTS` that an English or Chinese caption names."""
        return parse_caption(caption)

    def in_split(self, split: Split) -> "StageWorld":
        """The stage with these settings and the combinations of `split`."""
        return StageWorld(replace(self.config, split=split))

    def _allowed(self, noun: str, value: str, kind: Literal["verb", "ground"]) -> bool:
        return self.config.split != "train" or not is_held_out(noun, value, kind=kind, salt=self.config.salt)

    def _partners_of(self, noun: str, verb: str) -> tuple[str, ...]:
        """The nouns that can be the object of a paired verb."""
        can_be_partner = VERBS[verb].partner
        others = (name for name in self._nouns if name != noun)
        return tuple(name for name in others if can_be_partner(NOUNS[noun], NOUNS[name]))

    def _partners_on(self, noun: str, verb: str, ground: str) -> tuple[str, ...]:
        """The partners that the split allows on that ground. Only the training split excludes any."""
        partners = self._partners[noun, verb]
        if self.config.split != "train":
            return partners
        return tuple(partner for partner in partners if self._allowed(partner, ground, "ground"))

    def _allowed_grounds(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The grounds on which the split allows a noun to do a verb, for every possible (noun, verb)."""
        allowed = {}
        for noun in self._nouns:
            for verb in VERBS_OF[noun]:
                if self._is_possible(noun, verb):
                    grounds = self._grounds_in_split(noun, verb)
                    if grounds:
                        allowed[noun, verb] = grounds
        return allowed

    def _is_possible(self, noun: str, verb: str) -> bool:
        """Whether the configuration has the verb, a camera for it and, for a paired verb, a partner."""
        if verb not in self._verbs or not set(VERBS[verb].cameras) & set(self._cameras):
            return False
        return verb not in PAIRED or (self.config.max_objects > 1 and bool(self._partners[noun, verb]))

    def _grounds_in_split(self, noun: str, verb: str) -> tuple[str, ...]:
        salt = self.config.salt
        if self.config.split == "held_out":
            if is_held_out(noun, verb, kind="verb", salt=salt):
                return self._grounds
            return tuple(g for g in self._grounds if is_held_out(noun, g, kind="ground", salt=salt))

        if not self._allowed(noun, verb, "verb"):
            return ()
        grounds = tuple(g for g in self._grounds if self._allowed(noun, g, "ground"))
        if verb in PAIRED:
            grounds = tuple(g for g in grounds if self._partners_on(noun, verb, g))
        return grounds

    def _scene(self, seed: int, aspect: float) -> Scene:
        rng = random.Random(seed)
        noun = rng.choice(self._subjects)
        verbs = self._verbs_of[noun]
        verb = rng.choices(verbs, [VERBS[name].weight for name in verbs])[0]
        ground = rng.choice(self._grounds_of[noun, verb])
        other = rng.choice(self._partners_on(noun, verb, ground)) if verb in PAIRED else None
        sky = rng.choice(self._skies)

        counts = range(1, 1 + (1 if other else self.config.max_objects))
        count = rng.choices(counts, [COUNT_WEIGHT[c] for c in counts])[0]
        size = (
            "regular" if VERBS[verb].resizes else _weighted_choice(list(SIZE_WEIGHT), SIZE_WEIGHT, 0.0, rng)
        )
        cameras = [camera for camera in VERBS[verb].cameras if camera in self._cameras]
        camera = _weighted_choice(cameras, CAMERA_WEIGHT, 0.7, rng)

        scenery = sample_scenery(ground, sky, aspect, random.Random(f"{seed}|scenery"))
        return sample_scene(Action(verb, noun, other, count, size, camera), scenery, aspect, rng)

    def foil_values(self, truth: Mapping[str, Any], slot: str) -> list[Any]:
        """The wrong values of `slot` that the rest of the truth allows and that a medium caption names."""
        return [value for value in SLOT_VALUES[slot](self, truth) if value != truth[slot]]

    def _foil_nouns(self, truth: Mapping[str, Any]) -> list[str]:
        verb, partner = truth["verb"], truth["other"]
        nouns = [noun for noun in self._nouns if verb in VERBS_OF[noun]]
        return [noun for noun in nouns if partner is None or partner in self._partners[noun, verb]]

    def _foil_verbs(self, truth: Mapping[str, Any]) -> list[str]:
        if truth["tail"] is not None:
            return []
        noun, partner = truth["noun"], truth["other"]
        # Verbs that take the same slots: the sentence keeps its direction, its partner and its camera.
        kind = VERBS[truth["verb"]].kind
        verbs = [verb for verb in self._verbs if VERBS[verb].kind == kind and verb in VERBS_OF[noun]]
        return [
            verb
            for verb in verbs
            if truth["camera"] in VERBS[verb].cameras
            and (partner is None or partner in self._partners[noun, verb])
        ]

    def _foil_directions(self, truth: Mapping[str, Any]) -> list[str]:
        return next((list(pair) for pair in OPPOSITES if truth["direction"] in pair), [])

    def _foil_sizes(self, truth: Mapping[str, Any]) -> list[str]:
        return [] if VERBS[truth["verb"]].resizes else ["small", "large"]

    def _foil_counts(self, truth: Mapping[str, Any]) -> list[int]:
        return list(range(1, 1 + (1 if truth["other"] else self.config.max_objects)))

    def _foil_cameras(self, truth: Mapping[str, Any]) -> list[str]:
        if truth["camera_stops"]:
            return []
        return [
            camera for camera in VERBS[truth["verb"]].cameras if camera in self._cameras and camera != "still"
        ]


SLOT_VALUES: dict[str, Callable[[StageWorld, Mapping[str, Any]], Sequence[Any]]] = {
    "noun": StageWorld._foil_nouns,
    "verb": StageWorld._foil_verbs,
    "direction": StageWorld._foil_directions,
    "ground": lambda world, truth: world._grounds,
    "sky": lambda world, truth: world._skies,
    "size": StageWorld._foil_sizes,
    "count": StageWorld._foil_counts,
    "camera": StageWorld._foil_cameras,
}
"""The values of each slot of `grammar.FOIL_SLOTS` that a foil may have, the true one among them."""


def _weighted_choice(
    values: Sequence[str], weights: Mapping[str, float], default: float, rng: random.Random
) -> str:
    return rng.choices(values, [weights.get(value, default) for value in values])[0]
