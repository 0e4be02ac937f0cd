"""Measures that a recipe names as "module:function": found when a build begins, called in the children that decode.

A scorer takes the frames of a clip, uint8 (f, h, w, 3), and returns a number. A cut detector takes small frames, uint8 (h, w, 3), as they
come and gives for each, in order and as late as it likes, whether a shot begins there.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import ConfigError
from kinema.files import sha256_of

Scorer = Callable[[np.ndarray], float]
CutDetector = Callable[[Iterator[np.ndarray]], Iterator[bool]]


def load(name: str) -> Any:
    """The function called "module:function". Raises `ConfigError` when there is none."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name.isidentifier():
        raise ConfigError(
            f"'{name}' names no function: write module:function, e.g. kinema.data.curation.overlay:share"
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except ImportError as error:
        raise ConfigError(
            f"'{name}' cannot be imported ({error}): its module must be installed, or lie in PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigError(f"'{name}': the module has no function of that name")
    return function


def version(name: str) -> str:
    """A hash of the file that holds the function, so that what an older one said is not taken for its answer."""
    load(name)
    spec = importlib.util.find_spec(name.partition(":")[0])
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return (
        sha256_of(origin)[:16]
        if origin is not None and origin.is_file()
        else ""
    )


def measure(name: str, frames: np.ndarray) -> float:
    """What the scorer says of a clip. Raises `ConfigError` when that is no number: it is the recipe's fault and not the file's."""
    said = load(name)(frames)
    try:
        value = float(said)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"the scorer '{name}' gave {said!r}, which is not a finite number")
    return value
