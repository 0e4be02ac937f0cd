"""On the world's own tracks every law gives back the constants that made them."""

import numpy as np
import pytest

from kinema.evaluation.physics import fit_fall, fit_roll, flicker, mass_of, momentum_ratio, roll_ratio
from kinema.worlds.stage import StageConfig, StageWorld
from kinema.worlds.stage.physics import GRAVITY, drop

TIMES = np.arange(17) / 8


def clips(verb: str, count: int, *, objects: int = 1, side: int = 16):
    world = StageWorld(
        StageConfig(nouns=24, verbs=(verb,), max_objects=objects, cameras=("still",), split="all")
    )
    return [world.clip(seed, height=side, width=side, num_frames=17) for seed in range(count)]


def track(clip, name: str, role: str = "subject") -> np.ndarray:
    (found,) = [one["tracks"] for one in clip.truth["objects"] if one["role"] == role]
    return np.array(found[name])


@pytest.mark.parametrize("verb", ["bounce", "fall"])
def test_gravity_and_restitution_come_out_of_true_tracks(verb):
    for clip in clips(verb, 3):
        fall = fit_fall(TIMES, track(clip, "y"))
        assert fall.gravity == pytest.approx(GRAVITY, rel=0.05)
        assert fall.fit > 0.99
        if verb == "bounce":
            assert fall.restitution == pytest.approx(clip.truth["objects"][0]["restitution"], abs=0.02)


def test_half_the_gravity_is_wrong_and_noise_is_no_fall():
    slow = fit_fall(TIMES, 0.9 - drop(TIMES, 0.5, 0.8, GRAVITY / 2))
    assert slow.fit > 0.99
    assert slow.gravity == pytest.approx(GRAVITY / 2, rel=0.05)
    assert not slow.is_lawful
    assert not fit_fall(TIMES, 0.5 + 0.1 * np.random.default_rng(0).standard_normal(17)).is_lawful
    assert not fit_fall(TIMES, np.full(17, 0.5)).is_lawful


def test_turning_with_the_ground_is_rolling_and_gliding_is_not():
    x = np.linspace(0.2, 0.8, 17)
    assert roll_ratio(x, np.rad2deg(x / 0.2) % 360, 0.2) == pytest.approx(1)
    assert roll_ratio(x, np.zeros(17), 0.2) == 0
    assert roll_ratio(np.full(17, 0.4), np.zeros(17), 0.2) is None


def test_what_the_renderer_rolls_is_seen_to_roll():
    (clip,) = clips("roll", 1, side=96)
    x, y, size = (track(clip, name) for name in ("x", "y", "size"))
    roll = fit_roll(clip.frames[::2], clip.truth["noun"], x[::2], y[::2], size[::2])
    assert roll.is_lawful
    assert roll.match > 0.9
    still = np.repeat(clip.frames[:1], 9, axis=0)
    assert not fit_roll(still, clip.truth["noun"], x[::2], y[::2], size[::2]).is_lawful


def test_momentum_is_kept_in_the_world_and_not_when_the_struck_one_runs_off():
    ratios, runaway = [], []
    for clip in clips("knock", 8, objects=2):
        masses = [
            mass_of(clip.truth[noun], track(clip, "size", role)[0])
            for noun, role in (("noun", "subject"), ("other", "object"))
        ]
        striker, struck = track(clip, "x"), track(clip, "x", "object")
        ratios.append(momentum_ratio(TIMES, striker, struck, *masses))
        runaway.append(momentum_ratio(TIMES, striker, struck[0] + 2.5 * (struck - struck[0]), *masses))
    known = [ratio for ratio in ratios if ratio is not None]
    assert len(known) >= 6
    assert np.median(np.abs(np.array(known) - 1)) < 0.1
    assert np.median([ratio for ratio in runaway if ratio is not None]) > 1.3


def test_the_renderer_does_not_flicker_and_noise_does():
    (clip,) = clips("roll", 1, side=64)
    where = [track(clip, name)[:, None] for name in ("x", "y", "size")]
    assert flicker(clip.frames, *where) == 0
    noise = np.random.default_rng(0).integers(0, 2, clip.frames.shape, dtype=np.uint8)
    assert flicker(np.minimum(clip.frames, 200) + noise, *where) == pytest.approx(0.5, abs=0.02)
