"""The windows of a canvas that is longer than the model was trained with: which latent frames each generates,
and which it is given. Arithmetic without tensors.

Windows move away from kept clips, forwards or backwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Latent frames `first` to `stop` - 1, of which `new_first` to `new_stop` - 1 are generated."""

    first: int
    stop: int
    new_first: int
    new_stop: int


def sliding_windows(
    is_free: Sequence[bool], size: int, history: int, cuts: Sequence[int] = ()
) -> list[Window]:
    """Windows of at most `size` latent frames that together generate every free one, in order of generation.

    A window has up to `history` finished latent frames on the side it comes from, and up to that many on the
    other side when it reaches kept ones. No window generates latent frames on both sides of one of `cuts`,
    where the prompt changes.
    """
    history = max(0, min(history, size - 1))
    free = [i for i, latent_is_free in enumerate(is_free) if latent_is_free]
    if free and len(is_free) <= size and not any(free[0] < cut <= free[-1] for cut in cuts):
        return [Window(0, len(is_free), free[0], free[-1] + 1)]

    windows: list[Window] = []
    for first, stop in _runs(is_free):
        bounds = [first, *(cut for cut in sorted(set(cuts)) if first < cut < stop), stop]
        single = _single_window(first, stop, len(is_free), size, history) if len(bounds) == 2 else None
        if single is not None:
            windows.append(single)
        elif first == 0 and stop < len(is_free):
            windows += _backward(stop, len(is_free), size, history, bounds)
        else:
            windows += _forward(first, stop, len(is_free), size, history, bounds)
    return windows


def _runs(is_free: Sequence[bool]) -> list[tuple[int, int]]:
    """First and stop of every run of free latent frames."""
    padded = [False, *is_free, False]
    edges = [i for i in range(len(padded) - 1) if padded[i] != padded[i + 1]]
    return list(zip(edges[::2], edges[1::2]))


def _single_window(first: int, stop: int, total: int, size: int, history: int) -> Window | None:
    """One window for a whole run with the kept latent frames on both sides, or None if that is too long."""
    room = size - (stop - first)
    left, right = min(first, history), min(total - stop, history)
    if left and right and left + right > room >= 2:
        # Both ends fit if each gives up history. With both, the motion leads from one end to the other.
        right = min(right, max(1, room // 2))
        left = room - right

    spare = room - left - right
    if spare < 0:
        return None
    before = min(first - left, spare)
    after = min(total - stop - right, spare - before)
    return Window(first - left - before, stop + right + after, first, stop)


def _forward(
    first: int, stop: int, total: int, size: int, history: int, bounds: Sequence[int]
) -> list[Window]:
    windows = []
    position = first
    while position < stop:
        room = size - min(position, history)
        bound = next(bound for bound in bounds if bound > position)
        ahead = min(total - stop, history, room - 1) if bound == stop else 0
        remaining = bound - position + ahead

        new_stop = min(bound, position + (_even_share(remaining, room) if position else room))
        if new_stop == bound and remaining > room and bound - position > 1:
            new_stop -= 1  # leave the last step to a window that contains the kept frames behind it

        num_ahead = min(ahead, room - (new_stop - position)) if new_stop == stop else 0
        last = new_stop + num_ahead
        windows.append(Window(max(0, last - size), last, position, new_stop))
        position = new_stop
    return windows


def _backward(stop: int, total: int, size: int, history: int, bounds: Sequence[int]) -> list[Window]:
    windows = []
    position = stop
    while position > 0:
        bound = next(bound for bound in reversed(bounds) if bound < position)
        room = size - min(total - position, history)
        new_first = position - _even_share(position - bound, room)
        windows.append(Window(new_first, min(total, new_first + size), new_first, position))
        position = new_first
    return windows


def _even_share(num_latents: int, room: int) -> int:
    """The next window's latent frames if the fewest windows share `num_latents` evenly: the most history."""
    num_windows = -(-num_latents // room)
    return -(-num_latents // num_windows)
