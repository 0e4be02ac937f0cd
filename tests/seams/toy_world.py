"""A world in one file and one line: a coloured square that moves by an action. It holds nothing out."""

from dataclasses import dataclass

import numpy as np

from kinema.worlds import CAPTION_KEYS, Clip, WorldEntry

COLOURS = {"red": (220, 40, 40), "blue": (50, 70, 220)}
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class ToyConfig:
    has_slots: bool = True


class ToyWorld:
    name, split, words = "toy", "all", ("a", "square", "moves", *COLOURS, *STEPS)

    def __init__(self, config):
        self.config = config
        self.vocabulary = {"colour": tuple(COLOURS), "direction": tuple(STEPS)}
        self.slots = self.vocabulary if config.has_slots else {}

    def in_split(self, split):
        return self

    def truth(self, seed, *, num_frames, aspect=1.0, fps=8.0):
        times = np.arange(num_frames) / fps
        slots = {"colour": list(COLOURS)[seed % 2], "direction": list(STEPS)[seed // 2 % 4]}
        x, y = np.array([[aspect / 2], [0.5]]) + 0.1 * np.outer(STEPS[slots["direction"]], times)
        tracks = {"x": x.tolist(), "y": y.tolist(), "size": [0.3] * num_frames, "visible": [1.0] * num_frames}
        return {"seed": seed, "aspect": aspect, **slots, "objects": [{"role": "subject", "tracks": tracks}]}

    def caption(self, truth, form, language="en", rng=None):
        return f"a {truth['colour']} square moves {truth['direction']}"

    def clip(self, seed, *, height, width, num_frames, fps=8.0):
        truth = self.truth(seed, num_frames=num_frames, aspect=width / height, fps=fps)
        frames, tracks = np.full((num_frames, height, width, 3), 230, np.uint8), truth["objects"][0]["tracks"]
        for frame, x, y in zip(frames, tracks["x"], tracks["y"]):
            top, left, side = (max(0, int(value * height)) for value in (y - 0.15, x - 0.15, 0.3))
            frame[top : top + side, left : left + side] = COLOURS[truth["colour"]]
        actions = np.repeat([STEPS[truth["direction"]]], num_frames, axis=0)
        return Clip(frames, fps, dict.fromkeys(CAPTION_KEYS, self.caption(truth, "medium")), truth, actions)

    def foil_values(self, truth, slot):
        return [value for value in self.slots[slot] if value != truth[slot]]

    def foil(self, clip, seed):
        slot = ("colour", "direction")[seed % 2]
        return self.caption(clip.truth | {slot: self.foil_values(clip.truth, slot)[0]}, "medium"), slot

    def named_slots(self, truth):
        return {slot: truth[slot] for slot in self.slots}


ENTRY = WorldEntry(ToyConfig, ToyWorld)
