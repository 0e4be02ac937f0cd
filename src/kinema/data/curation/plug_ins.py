"""Functions that a recipe names as "module:function": resolved when a build starts, called in the child
processes.

A scorer takes the frames of a clip, uint8 (f, h, w, 3), and returns a number. A cut detector takes an
iterator of small frames, uint8 (h, w, 3), and yields for each frame, in order and with any delay, whether a
shot starts there.
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

OWN_PACKAGE = "kinema.data.curation."
OWN_PACKAGE_0_1_0 = "kinema.curate."
"""The package's name in version 0.1.0; recipes of that version may contain it."""
OWN_VERSIONS = {"overlay": "718a9cb117f4aaba", "transnet": "f75c9319b627f844"}
"""Versions of the modules that come with the package. Change one when its results change."""


def load_function(name: str) -> Any:
    """The function called "module:function". Raises `ConfigError` if it does not exist."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name.isidentifier():
        raise ConfigError(
            f"'{name}' is not the name of a function: write module:function, e.g. {OWN_PACKAGE}overlay:share"
        )

    try:
        function = getattr(importlib.import_module(_current(module_name)), function_name, None)
    except ImportError as error:
        raise ConfigError(
            f"'{name}' cannot be imported ({error}): install its module, or add its folder to PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigError(f"'{name}': the module has no function of that name")
    return function


def function_version(name: str) -> str:
    """16 digits that change when the function changes: stored results of an older version are not used.

    For a module of the package the entry of `OWN_VERSIONS`, otherwise a hash of the module's file.
    """
    load_function(name)
    module_name = _current(name.partition(":")[0])
    own = (
        OWN_VERSIONS.get(module_name.removeprefix(OWN_PACKAGE))
        if module_name.startswith(OWN_PACKAGE)
        else None
    )
    if own is not None:
        return own

    spec = importlib.util.find_spec(module_name)
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return sha256_of(file)[:16] if file is not None and file.is_file() else ""


def run_scorer(name: str, frames: np.ndarray) -> float:
    """The score of a clip, frames uint8 (f, h, w, 3). Raises `ConfigError`, because the recipe is at fault,
    if it is not finite.
    """
    score = load_function(name)(frames)
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"the scorer '{name}' gave {score!r}, which is not a finite number")
    return value


def _current(module_name: str) -> str:
    """The name of a module in this version of the package."""
    if module_name.startswith(OWN_PACKAGE_0_1_0):
        return OWN_PACKAGE + module_name.removeprefix(OWN_PACKAGE_0_1_0)
    return module_name
