from itertools import pairwise

import numpy as np
import pytest

from kinema.worlds.stage import StageConfig, StageWorld, physics

SIZE = {"height": 16, "width": 16}


def clips_of(verb: str, *, num_frames: int, fps: float, count: int = 8, **options):
    world = StageWorld(StageConfig(verbs=(verb,), split="all", **options))
    return [world.clip(seed, num_frames=num_frames, fps=fps, **SIZE) for seed in range(count)]


def track(clip, name: str, index: int = 0) -> np.ndarray:
    return np.array(clip.truth["objects"][index]["tracks"][name])


@pytest.mark.parametrize("restitution", [0.3, 0.6, 0.8])
def test_each_bounce_is_restitution_squared_of_the_one_before(restitution):
    times = np.linspace(0, 6, 600_001)
    height = physics.drop(times, 0.4, restitution)
    impacts = [0.0, *physics.impact_times(0.4, restitution)]
    tops = [height[(times >= a) & (times < b)].max() for a, b in pairwise(impacts[:5])]
    assert tops[0] == pytest.approx(0.4)
    np.testing.assert_allclose(np.divide(tops[1:], tops[:-1]), restitution**2, rtol=1e-4)


def test_bouncing_objects_accelerate_by_gravity_between_contacts():
    fps = 100.0
    for clip in clips_of("bounce", num_frames=200, fps=fps, max_objects=1):
        height, gravity = track(clip, "height"), clip.truth["physics"]["gravity"]
        hits = np.array([c["time"] for c in clip.truth["contacts"] if c["kind"] == "ground"]) * fps
        assert len(hits) >= 2
        inner = [k for k in range(1, 199) if np.abs(hits - k).min() > 1.5]
        second = (height[2:] - 2 * height[1:-1] + height[:-2]) * fps**2
        np.testing.assert_allclose(
            second[np.array(inner) - 1], -gravity, atol=0.25
        )  # tracks are rounded to 1e-5
        assert np.mean(second[np.array(inner) - 1]) == pytest.approx(-gravity, abs=0.01)


def test_hops_are_ballistic_and_all_of_one_height():
    period = physics.hop_period(0.15)
    times = np.linspace(0, 5 * period, 50_001)
    height = physics.hops(times, 0.15)
    assert height.max() == pytest.approx(0.15, rel=1e-6)
    np.testing.assert_allclose(height[5000::10000], 0.15, rtol=1e-3)
    np.testing.assert_allclose(
        np.diff(height[:9000], 2) / np.diff(times)[0] ** 2, -physics.GRAVITY, rtol=1e-4
    )


def test_rolling_objects_do_not_slip():
    for clip in clips_of(
        "roll", num_frames=41, fps=10.0, max_objects=1, cameras=("still", "pan_left", "follow")
    ):
        turned = np.deg2rad(np.diff(track(clip, "degrees")))
        gone = np.diff(track(clip, "world_x"))
        assert np.abs(gone).max() > 0.01
        np.testing.assert_allclose(gone, turned * clip.truth["objects"][0]["radius"], atol=2e-5)


def test_a_knock_keeps_momentum_and_loses_relative_speed_by_the_restitution():
    for clip in clips_of("knock", num_frames=201, fps=100.0):
        (pushed, hitter), fps = clip.truth["objects"], 100.0
        hit = next(c["time"] for c in clip.truth["contacts"] if c["kind"] == "hit")
        k = int(hit * fps)
        before, after = slice(k - 5, k), slice(k + 1, k + 3)
        v = {"hitter": np.diff(track(clip, "x", 1)) * fps, "pushed": np.diff(track(clip, "x", 0)) * fps}
        speed = v["hitter"][before].mean()
        left, gained = v["hitter"][after].mean(), v["pushed"][after].mean()
        assert abs(v["pushed"][before]).max() < 1e-6
        momentum = hitter["mass"] * left + pushed["mass"] * gained
        assert momentum == pytest.approx(
            hitter["mass"] * speed, rel=0.06
        )  # friction has acted for two frames
        assert gained - left == pytest.approx(clip.truth["physics"]["hit_restitution"] * speed, rel=0.06)


def test_collision_law_keeps_momentum_and_for_restitution_one_energy():
    after, pushed = physics.collide(3.0, 2.0, 1.5, 1.0)
    assert 3.0 * after + 2.0 * pushed == pytest.approx(4.5)
    assert 3.0 * after**2 + 2.0 * pushed**2 == pytest.approx(3.0 * 1.5**2)


def test_sliding_objects_slow_down_evenly_and_stop():
    for clip in clips_of("slide", num_frames=25, fps=8.0, max_objects=1, cameras=("still",)):
        speed = np.abs(np.diff(track(clip, "x")))
        assert speed[-1] == pytest.approx(0.0, abs=1e-5)
        np.testing.assert_allclose(np.diff(speed[:14], 2), 0.0, atol=5e-5)


def test_what_passes_behind_is_hidden_and_comes_back():
    hidden = []
    for clip in clips_of("pass", num_frames=33, fps=16.0, count=12, cameras=("still",)):
        visible = track(clip, "visible")
        low = int(visible.argmin())
        assert visible[0] > 0.4
        assert visible[-1] > 0.4
        assert 0 < low < 32
        assert visible[low] < 0.75
        assert (track(clip, "visible", 1) > 0.999).all()
        hidden.append(visible[low])
    assert np.mean(hidden) < 0.35


def test_a_mirror_folds_a_line_without_jumps():
    line = np.linspace(-7, 9, 4001)
    folded, sense = physics.reflect(line, 0.2, 0.9)
    assert folded.min() >= 0.2
    assert folded.max() <= 0.9
    assert np.abs(np.diff(folded)).max() <= np.diff(line)[0] * 1.0001
    same = np.diff(sense) == 0
    np.testing.assert_allclose(np.diff(folded)[same], (sense[:-1] * np.diff(line))[same], atol=1e-9)
