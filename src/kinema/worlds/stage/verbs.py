"""The verbs of the stage, one row each: who can do it, how it moves, its cameras and its words."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kinema.worlds.stage import motions
from kinema.worlds.stage.nouns import NOUNS, Noun
from kinema.worlds.stage.scene import RISE_DURATION, Actor, Scene

PANS, ZOOMS = ("still", "pan_left", "pan_right"), ("still", "zoom_in", "zoom_out")
STILL_CAMERAS = (*PANS, *ZOOMS[1:])
ALL_CAMERAS = (*STILL_CAMERAS, "follow")

Pair = Callable[[Scene, float, float, float, random.Random], Scene]
"""A scene of two actors, from the direction (+1 right), the unit of size and the margin."""


@dataclass(frozen=True)
class Verb:
    """One row of the table.

    A verb is `moving` along the ground, `paired` with a second noun, `turning` in place or `standing`. Verbs
    of one kind take the same slots in a sentence. In the words, `{other}` stands for the partner, `{ground}`
    for the ground, `{at}` for "on the ground" and `{to}` for the direction.
    """

    kind: Literal["moving", "standing", "turning", "paired"]
    can: Callable[[Noun], bool]
    """Whether a noun can be its subject."""
    cameras: tuple[str, ...]
    english: tuple[tuple[str, str], ...]
    """Singular and plural; the usual words first."""
    chinese: tuple[str, ...]
    details: tuple[str, ...]
    motion: motions.Motion = lambda actor, ceiling, rng: actor
    pair: Pair | None = None
    partner: Callable[[Noun, Noun], bool] = lambda subject, other: False
    """Whether the second noun can be the object of a paired verb."""
    directions: tuple[str, str] = ("right", "left")
    """The values of the slot for an actor that faces right and left."""
    preposition: str = "on"
    """Between verb and ground."""
    is_into_sky: bool = False
    """Whether a caption may name the sky as where it goes."""
    is_braked: bool = False
    """Whether friction stops it."""
    resizes: bool = False
    tail: str | None = None
    """What follows in a long clip, when the motion is over."""
    end: Callable[[Actor], float] = lambda actor: float("inf")
    """The time at which the motion is over."""
    weight: float = 2.0
    """Relative frequency. Lower for verbs that are not natural for a particular kind of noun."""


def _has(*traits: str) -> Callable[[Noun], bool]:
    return lambda noun: not noun.traits.isdisjoint(traits)


VERBS: dict[str, Verb] = {
    "roll": Verb(
        "moving",
        _has("round"),
        motion=motions.with_fields(rolls=True),
        cameras=ALL_CAMERAS,
        english=(("rolls", "roll"), ("rolls along", "roll along")),
        chinese=("{at}{to}滚动", "{at}{to}滚去"),
        details=("It turns as it goes, without slipping.", "It rolls smoothly on the ground."),
    ),
    "bounce": Verb(
        "moving",
        _has("round"),
        motion=motions.bounce,
        cameras=ALL_CAMERAS,
        english=(("bounces", "bounce"), ("bounces along", "bounce along")),
        chinese=("{at}{to}弹跳",),
        details=(
            "Each bounce is lower than the one before.",
            "It drops from above and every bounce loses height.",
        ),
        tail="rolls_on",
        end=motions.bounce_end,
    ),
    "fall": Verb(
        "standing",
        lambda noun: "rooted" not in noun.traits,
        motion=motions.fall,
        cameras=STILL_CAMERAS,
        english=(("falls down", "fall down"), ("drops down", "drop down")),
        chinese=("落到{ground}上", "掉到{ground}上"),
        details=("It speeds up until it hits the ground.", "It drops from above and lands on the ground."),
        directions=("down", "down"),
        preposition="onto",
        weight=0.6,
    ),
    "drive": Verb(
        "moving",
        _has("wheels"),
        cameras=ALL_CAMERAS,
        english=(("drives", "drive"), ("drives along", "drive along")),
        chinese=("{at}{to}行驶", "{at}{to}开动"),
        details=("It moves at a steady speed.", "Its wheels stay on the ground."),
    ),
    "walk": Verb(
        "moving",
        _has("legs"),
        motion=motions.with_fields(vertical="walk"),
        cameras=ALL_CAMERAS,
        english=(("walks", "walk"), ("strolls", "stroll")),
        chinese=("{at}{to}行走", "{at}{to}走动"),
        details=("It sways gently with every step.", "It takes steady steps."),
    ),
    "hop": Verb(
        "moving",
        _has("hops"),
        motion=motions.hop,
        cameras=ALL_CAMERAS,
        english=(("hops", "hop"), ("hops along", "hop along"), ("jumps along", "jump along")),
        chinese=("{at}{to}蹦跳", "{at}{to}跳跃"),
        details=("Every hop has the same height.", "It leaps again and again."),
    ),
    "fly": Verb(
        "moving",
        _has("flies"),
        motion=motions.fly,
        cameras=ALL_CAMERAS,
        english=(("flies", "fly"), ("soars", "soar")),
        chinese=("在{ground}上空{to}飞行", "在{ground}上空{to}飞翔"),
        details=("Its shadow moves below on the ground.", "It stays high above the ground."),
        preposition="over",
    ),
    "rise": Verb(
        "standing",
        _has("flies", "floats"),
        motion=motions.rise,
        cameras=STILL_CAMERAS,
        english=(("rises", "rise"), ("ascends", "ascend"), ("rises up", "rise up")),
        chinese=("从{ground}上升空", "从{ground}上升起"),
        details=("It leaves the ground and goes straight up.", "Its shadow fades below as it goes up."),
        directions=("up", "up"),
        preposition="over",
        is_into_sky=True,
        tail="hovers",
        end=lambda actor: RISE_DURATION,
    ),
    "spin": Verb(
        "turning",
        lambda noun: True,
        motion=motions.spin,
        cameras=STILL_CAMERAS,
        english=(("spins", "spin"), ("rotates", "rotate")),
        chinese=("{at}{to}旋转", "{at}{to}转动"),
        details=("It turns around in place.", "It turns at a steady rate in one spot."),
        directions=("clockwise", "counterclockwise"),
        weight=0.3,
    ),
    "grow": Verb(
        "standing",
        lambda noun: True,
        motion=motions.with_fields(growth=(0.5, 1.12)),
        cameras=PANS,
        english=(("grows bigger", "grow bigger"), ("grows larger", "grow larger")),
        chinese=("{at}变大", "{at}长大"),
        details=("It stays in place and becomes bigger.",),
        directions=("none", "none"),
        resizes=True,
        weight=0.25,
    ),
    "shrink": Verb(
        "standing",
        lambda noun: True,
        motion=motions.with_fields(growth=(1.12, 0.5)),
        cameras=PANS,
        english=(("shrinks", "shrink"), ("gets smaller", "get smaller")),
        chinese=("{at}变小", "{at}缩小"),
        details=("It stays in place and becomes smaller.",),
        directions=("none", "none"),
        resizes=True,
        weight=0.2,
    ),
    "slide": Verb(
        "moving",
        lambda noun: not {"rooted", "legs", "wheels", "floats", "flies"} & noun.traits,
        cameras=ZOOMS,
        english=(("slides", "slide"), ("glides", "glide")),
        chinese=("{at}{to}滑行", "{at}{to}滑动"),
        details=("It slows down from friction.", "It does not turn as it slides."),
        is_braked=True,
        tail="stops",
        end=motions.slide_end,
        weight=0.5,
    ),
    "pass": Verb(
        "paired",
        lambda noun: noun.locomotion in ("drive", "roll", "walk", "hop"),
        pair=motions.pass_behind,
        cameras=ZOOMS,
        english=(
            ("passes behind {other}", "pass behind {other}"),
            ("moves behind {other}", "move behind {other}"),
        ),
        chinese=("{at}{to}从{other}后面经过", "{at}{to}从{other}后面穿过"),
        details=(
            "It is hidden for a moment and appears again.",
            "It vanishes from view and comes out on the other side.",
        ),
        partner=lambda subject, other: "big" in other.traits,
        weight=0.7,
    ),
    "knock": Verb(
        "paired",
        lambda noun: noun.locomotion in ("drive", "roll") or {"heavy", "legs"} <= noun.traits,
        pair=motions.knock,
        cameras=("still",),
        english=(("knocks {other} away", "knock {other} away"), ("bumps {other} away", "bump {other} away")),
        chinese=("{at}{to}撞开{other}", "{at}{to}撞走{other}"),
        details=("The hit pushes it off.", "After the hit both slow down."),
        partner=lambda subject, other: other.mass <= subject.mass and "rooted" not in other.traits,
        weight=0.7,
    ),
    "chase": Verb(
        "paired",
        lambda noun: noun.locomotion in ("drive", "walk", "hop", "fly"),
        pair=motions.chase,
        cameras=ALL_CAMERAS,
        english=(("chases {other}", "chase {other}"), ("runs after {other}", "run after {other}")),
        chinese=("{at}{to}追赶{other}", "{at}{to}追逐{other}"),
        details=("It stays close behind.", "Both move at the same speed."),
        partner=lambda subject, other: other.locomotion == subject.locomotion,
        weight=0.7,
    ),
}

VERBS_OF: dict[str, tuple[str, ...]] = {
    name: tuple(verb for verb, row in VERBS.items() if row.can(noun)) for name, noun in NOUNS.items()
}
"""The verbs of which each noun can be the subject."""
