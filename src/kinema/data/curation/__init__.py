"""From a folder of real videos to a data set that trains: every step a plain function of rows and a recipe.

    recipe.py     what is cut, kept and encoded, as one frozen table
    sources.py    which files there are, and what lies beside them: captions, licences
    stages.py     the work on one file, in a child that may die: look (probe, decode once, cut, score), see and encode
    cuts.py       where one shot ends and the next begins
    scores.py     motion, sharpness, exposure, borders, and what a clip looks like
    filters.py    which clips are dropped, and why
    dedup.py      which clips show the same thing
    plug_ins.py   scorers and cut detectors that a recipe names as module:function
    overlay.py    one of them: overlaid text
    engine.py     children with deadlines: tasks in, outcomes out
    on_ray.py     the same on many machines; the only file that imports ray
    store.py      what has been done, by content: a build that was killed does only what is left
    build.py      the chain
    report.py     one page that shows what became of the files

What a build writes, `kinema.data.dataset` reads.
"""
