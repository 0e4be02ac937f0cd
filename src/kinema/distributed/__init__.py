"""Training on several ranks: processes that torchrun starts, on one machine or on many.

One rank is the ordinary case. It needs no process group, and nothing here changes its results.
"""

from kinema.distributed.group import AnotherRankFailed, Group, one_report, open_group
from kinema.distributed.ranks import ParallelConfig, Ranks, Share
from kinema.distributed.sharding import WholeModel, gathered, like, parallelize, whole

__all__ = [
    "AnotherRankFailed",
    "Group",
    "ParallelConfig",
    "Ranks",
    "Share",
    "WholeModel",
    "gathered",
    "like",
    "one_report",
    "open_group",
    "parallelize",
    "whole",
]
