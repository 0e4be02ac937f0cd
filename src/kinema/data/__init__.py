"""Training data: batches from worlds and from data sets of real videos.

seeds.py         batches as functions of (seed, step)
world_clips.py   clips of a world by index
latents.py       latents of a world's clips, encoded once
text_states.py   hidden states of captions, encoded once
shard_cache.py   tensors that are computed once, in folders named by what they depend on
augment.py       degradations for networks that read imperfect clips
dataset.py       a data set on disk
packing.py       clips of any size into batches of equal token count
curation/        real videos to data sets
"""
