"""How a canvas that is longer than the model was trained with is made: in windows that slide over its latents.

A window sees some latents that are done (its history, and what is known behind it) and makes the next ones. Latents are kept, never
decoded and encoded again, so a window costs the same wherever it stands. Windows go forward from what is known, or backward towards it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Latent frames `first` to `stop` - 1 are seen; of those, `new_first` to `new_stop` - 1 are made."""

    first: int
    stop: int
    new_first: int
    new_stop: int


def slide(is_free: Sequence[bool], size: int, history: int, cuts: Sequence[int] = ()) -> list[Window]:
    """Windows of at most `size` latent frames that together make every free one, in the order in which they are to be made.

    A window keeps at least `history` latents that are done on the side it comes from, where there are as many, and up to that on the other
    side when it arrives at known ones. No window makes latents on both sides of one of `cuts` (where the prompt changes).
    """
    history = max(0, min(history, size - 1))
    free = [i for i, is_one in enumerate(is_free) if is_one]
    if free and len(is_free) <= size and not any(free[0] < cut <= free[-1] for cut in cuts):
        return [Window(0, len(is_free), free[0], free[-1] + 1)]
    windows: list[Window] = []
    for first, stop in _runs(is_free):
        pieces = [first, *(cut for cut in sorted(set(cuts)) if first < cut < stop), stop]
        if len(pieces) == 2 and (alone := _alone(first, stop, len(is_free), size, history)):
            windows.append(alone)
        elif first == 0 and stop < len(is_free):
            windows += _backward(stop, len(is_free), size, history, pieces)
        else:
            windows += _forward(first, stop, len(is_free), size, history, pieces)
    return windows


def _runs(is_free: Sequence[bool]) -> list[tuple[int, int]]:
    edges = [
        i for i in range(len(is_free) + 1) if (i > 0 and is_free[i - 1]) != (i < len(is_free) and is_free[i])
    ]
    return list(zip(edges[::2], edges[1::2]))


def _alone(first: int, stop: int, total: int, size: int, history: int) -> Window | None:
    """One window for a whole run with what is known on both of its sides, when that is not too long."""
    room = size - (stop - first)
    left, right = min(first, history), min(total - stop, history)
    if (
        left and right and left + right > room >= 2
    ):  # both ends in one window, if only a latent of one: the way leads to where it arrives
        right = min(right, max(1, room // 2))
        left = room - right
    spare = room - left - right
    if spare < 0:
        return None
    before = min(first - left, spare)
    after = min(total - stop - right, spare - before)
    return Window(first - left - before, stop + right + after, first, stop)


def _forward(
    first: int, stop: int, total: int, size: int, history: int, pieces: Sequence[int]
) -> list[Window]:
    windows = []
    at = first
    while at < stop:
        room = size - min(at, history)
        piece = next(cut for cut in pieces if cut > at)
        ahead = min(total - stop, history, room - 1) if piece == stop else 0
        left = piece - at + ahead
        new_stop = min(piece, at + (_share(left, room) if at else room))
        if new_stop == piece and left > room and piece - at > 1:
            new_stop -= 1  # leave the last step to a window that sees where it arrives
        seen = min(ahead, room - (new_stop - at)) if new_stop == stop else 0
        windows.append(Window(max(0, new_stop + seen - size), new_stop + seen, at, new_stop))
        at = new_stop
    return windows


def _backward(stop: int, total: int, size: int, history: int, pieces: Sequence[int]) -> list[Window]:
    windows = []
    at = stop
    while at > 0:
        piece = next(cut for cut in reversed(pieces) if cut < at)
        new_first = at - _share(at - piece, size - min(total - at, history))
        windows.append(Window(new_first, min(total, new_first + size), new_first, at))
        at = new_first
    return windows


def _share(num_latents: int, room: int) -> int:
    """How many of them the next window makes when as few windows as can be make about as many each, so that all see much history."""
    return -(-num_latents // -(-num_latents // room))
