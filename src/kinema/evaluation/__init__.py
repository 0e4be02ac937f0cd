"""Measuring a model against its world's truth.

samples.py     prompts with their truth, of combinations that training showed and of ones it did not
eye.py         the oracle, and whether it may be trusted with this model
alignment.py   slots right and wrong: absolute, the floor of shuffled prompts, relative to the renderer's ceiling
physics.py     gravity, restitution, rolling, momentum, permanence and flicker, from tracks
cases.py       the cases of the timeline's tasks: what is asked of the model, and the truth of it
tasks.py       the numbers of one result: joins, motion, loops, regions, drift
timeline.py    all tasks, resumable, as one JSON object, which timeline_page.py shows
folder.py      whose folder it is
towers.py      the VAE's and the CLIP's own figures
suite.py       all of it, resumable, as one JSON object
page.py        that object as a table and as one HTML page with the videos in it
"""

from kinema.checkpoints.folders import load_oracle
from kinema.evaluation.prompts import PromptsConfig, evaluate_prompts
from kinema.evaluation.prompts_page import prompts_table, write_prompts_page
from kinema.evaluation.samples import Sample, draw_samples, stage_of
from kinema.evaluation.timeline import TimelineConfig, evaluate_timeline
from kinema.evaluation.timeline_page import timeline_table, write_timeline_page
from kinema.evaluation.trust import OracleAccuracy

__all__ = [
    "PromptsConfig",
    "Sample",
    "TimelineConfig",
    "OracleAccuracy",
    "draw_samples",
    "evaluate_prompts",
    "evaluate_timeline",
    "load_oracle",
    "stage_of",
    "prompts_table",
    "timeline_table",
    "write_prompts_page",
    "write_timeline_page",
]
