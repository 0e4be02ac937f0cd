"""The steps of a data build, in their order.

    probe.py        identify each file: hash, header
    analyze.py      decode each file once: shots, scores
    cut.py          rows of clips with their sizes; filters
    deduplicate.py  drop clips that show the same as another
    caption.py      captions from a captioner, an endpoint or a file
    score.py        further scores from a CLIP and the recipe's functions
    encode.py       latents
    write.py        shards, tables, dataset.json

A step is a function of the build's context and of the rows from the steps before it. What costs time is a
step function that runs in child processes; its results are stored. What follows from rows alone is computed
in every build.
"""
