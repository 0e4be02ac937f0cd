"""From a folder of real videos to a data set for training.

    recipe.py            the settings, as one frozen dataclass
    build.py             the chain of steps
    context.py           what the steps of one build share
    sources.py           input files, and the captions and licences beside them
    steps/               one file per step: probe, analyze, cut, deduplicate, caption, score, encode, write
    cuts.py              shot boundaries
    scores.py            motion, sharpness, exposure, borders, hash and thumbnails of a clip
    filters.py           the rules by which clips are dropped
    dedup.py             comparison of clips
    writers.py           writers of captions: captioner, endpoint, file
    caption_checks.py    checks of written captions
    plug_ins.py          scorers and cut detectors that a recipe names as module:function
    overlay.py           a scorer: overlaid text
    transnet.py          a cut detector: TransNetV2
    engine.py            step functions in child processes with deadlines
    ray_engine.py        the same on several machines; the only file that imports ray
    store.py             stored results by content
    array_store.py       latents and pixels, in the store or in shards
    funnel.py            how many files and clips remain after each step
    report.py            an HTML page about a data set
    validate.py          checks of a finished data set

`kinema.data.dataset` reads what a build writes.
"""
