"""Motions of the stage as exact functions of time: there is no step size, so nothing drifts.

Times are in seconds, lengths in stage units (height 1, y down). A path is a tuple of segments.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

GRAVITY = 2.6


class PathSegment(NamedTuple):
    """From `start` on, the distance is `distance + speed * dt + acceleration * dt**2 / 2`."""

    start: float
    distance: float
    speed: float
    acceleration: float


Path = tuple[PathSegment, ...]


def along(path: Path, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance and speed at `times` (>= 0) on a path."""
    if len(path) == 1:
        _, s, v, a = path[0]
        return s + v * times + 0.5 * a * times**2, v + a * times

    table = np.array(path)
    index = np.searchsorted(table[:, 0], times, side="right") - 1
    start, s, v, a = table[index].T
    dt = times - start
    return s + v * dt + 0.5 * a * dt**2, v + a * dt


def uniform(speed: float) -> Path:
    """A path at constant speed."""
    return (PathSegment(0.0, 0.0, speed, 0.0),)


def braked(speed: float, friction: float, *, start: float = 0.0, distance: float = 0.0) -> Path:
    """A path that decelerates by `friction` from `start` on until it rests.

    A negative `speed` goes backwards.
    """
    duration = abs(speed) / friction
    brake = -float(np.sign(speed)) * friction
    return (
        PathSegment(start, distance, speed, brake),
        PathSegment(start + duration, distance + 0.5 * speed * duration, 0.0, 0.0),
    )


def reflect(position: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions on a line folded into [low, high] by two mirrors, and the direction there, +1 or -1."""
    span = max(high - low, 1e-6)
    folded = np.mod(position - low, 2 * span)
    forward = folded < span
    return low + np.where(forward, folded, 2 * span - folded), np.where(forward, 1.0, -1.0)


def impact_times(
    height: float, restitution: float, gravity: float = GRAVITY, minimum: float = 0.004
) -> tuple[float, ...]:
    """The times at which a body dropped from `height` hits the ground, until bounces are below `minimum`.

    Bounce k reaches `height * restitution**(2 k)` and lasts `2 * sqrt(2 * that / gravity)`.
    """
    times = [float(np.sqrt(2 * height / gravity))]
    top = height * restitution**2
    while top > minimum:
        times.append(times[-1] + 2 * float(np.sqrt(2 * top / gravity)))
        top *= restitution**2
    return tuple(times)


def drop(times: np.ndarray, height: float, restitution: float, gravity: float = GRAVITY) -> np.ndarray:
    """Height above the ground of a body dropped at rest from `height`, which bounces until it rests."""
    impacts = impact_times(height, restitution, gravity)
    out = np.maximum(height - 0.5 * gravity * times**2, 0.0)
    launch = np.sqrt(2 * gravity * height)
    for k, (start, end) in enumerate(pairwise(impacts), start=1):
        dt = times - start
        flight = launch * restitution**k * dt - 0.5 * gravity * dt**2
        out = np.where((times >= start) & (times < end), np.maximum(flight, 0.0), out)
    return np.where(times >= impacts[-1], 0.0, out)


def hops(times: np.ndarray, height: float, gravity: float = GRAVITY) -> np.ndarray:
    """Height above the ground in a sequence of equal ballistic hops."""
    period = hop_period(height, gravity)
    dt = np.mod(times, period)
    return 0.5 * gravity * dt * (period - dt)


def hop_period(height: float, gravity: float = GRAVITY) -> float:
    """Duration of one hop of that height."""
    return 2 * float(np.sqrt(2 * height / gravity))


def eased(times: np.ndarray, duration: float) -> np.ndarray:
    """Progress from 0 to 1 in `duration`, with zero speed at both ends."""
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(times / duration, 1.0))


def collide(mass: float, other_mass: float, speed: float, restitution: float) -> tuple[float, float]:
    """Speeds of a body and of the resting body that it hits, just after the impact.

    Momentum is conserved, and the relative speed is multiplied by -restitution.
    """
    total = mass + other_mass
    return (mass - restitution * other_mass) * speed / total, (1 + restitution) * mass * speed / total
