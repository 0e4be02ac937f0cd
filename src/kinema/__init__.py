"""Kinema: an open text-to-video model, trained, run and served by one small package.

    import kinema
    kinema.generate("a penguin walks across the snow").save("penguin.mp4")

Public names are imported on first use, so importing the package is fast and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.api import animate, connect, edit, extend, generate, loop, storyboard
    from kinema.generation.loading import load
    from kinema.generation.request import Request
    from kinema.video import Video

__all__ = [
    "Request",
    "Video",
    "animate",
    "connect",
    "edit",
    "extend",
    "generate",
    "load",
    "loop",
    "storyboard",
]

_MODULES = {
    **dict.fromkeys(("animate", "connect", "edit", "extend", "generate", "loop", "storyboard"), "kinema.api"),
    "load": "kinema.generation.loading",
    "Request": "kinema.generation.request",
    "Video": "kinema.video",
}


def __getattr__(name: str) -> object:
    """The public object called `name`, from the module that defines it.

    Raises `AttributeError` for another name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'kinema' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
