"""Diffusion, without any network: schedules, what is learnt, samplers, guidance and the canvas of a generation."""

from kinema.diffusion.canvas import Canvas, Network, with_canvas
from kinema.diffusion.guidance import Pair, classifier_free, guide
from kinema.diffusion.objective import (
    OBJECTIVES,
    TIME_LAWS,
    WEIGHTINGS,
    Prediction,
    TimeLaw,
    Weighting,
    add_noise,
    draw_times,
    loss_weight,
    per_sample,
    target,
    to_noise,
    to_x0,
)
from kinema.diffusion.samplers import SAMPLERS, Denoise, Noise, OnStep, Sampler, SamplerState
from kinema.diffusion.schedule import DDPM, SCHEDULES, Cosine, DDPMTable, Linear, Schedule, log_snr, shift_time, time_grid
from kinema.diffusion.step_cache import CacheState, with_cache

__all__ = [
    "DDPM",
    "OBJECTIVES",
    "SAMPLERS",
    "SCHEDULES",
    "TIME_LAWS",
    "WEIGHTINGS",
    "CacheState",
    "Canvas",
    "Cosine",
    "DDPMTable",
    "Denoise",
    "Linear",
    "Network",
    "Noise",
    "OnStep",
    "Pair",
    "Prediction",
    "Sampler",
    "SamplerState",
    "Schedule",
    "TimeLaw",
    "Weighting",
    "add_noise",
    "classifier_free",
    "draw_times",
    "guide",
    "log_snr",
    "loss_weight",
    "per_sample",
    "shift_time",
    "target",
    "time_grid",
    "to_noise",
    "to_x0",
    "with_cache",
    "with_canvas",
]
