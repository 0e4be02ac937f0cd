"""Evaluation of a model against the truth of its world.

samples.py            prompts with their truth, of seen and held-out combinations
trust.py              the oracle's accuracy on the model's clips
alignment.py          prompt following by slot: model, ceiling, floor
captions.py           accuracy of captions
physics.py            gravity, restitution, rolling, momentum, permanence and flicker from tracks
vae_clip_metrics.py   PSNR of the VAE, retrieval and foils of the CLIP
prompts.py            the prompts benchmark
timeline_cases.py     the tasks of the timeline benchmark
timeline_metrics.py   the metrics of one timeline result
timeline.py           the timeline benchmark
run_folder.py         sampling options and output folder of both benchmarks
page.py               report of both as text and page: prompts_page.py, timeline_page.py
"""

from kinema.checkpoints.oracle import load_oracle
from kinema.evaluation.prompts import PromptsConfig, evaluate_prompts
from kinema.evaluation.prompts_page import prompts_table, write_prompts_page
from kinema.evaluation.samples import Sample, draw_samples, trained_world
from kinema.evaluation.timeline import TimelineConfig, evaluate_timeline
from kinema.evaluation.timeline_page import timeline_table, write_timeline_page
from kinema.evaluation.trust import OracleAccuracy

__all__ = [
    "OracleAccuracy",
    "PromptsConfig",
    "Sample",
    "TimelineConfig",
    "draw_samples",
    "evaluate_prompts",
    "evaluate_timeline",
    "load_oracle",
    "prompts_table",
    "timeline_table",
    "trained_world",
    "write_prompts_page",
    "write_timeline_page",
]
