"""Kinema: an open text-to-video model, trained, run and served by one small package.

    import kinema
    kinema.generate("a penguin walks across the snow").save("penguin.mp4")

The public names are loaded when they are first used, so importing the package is instant and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.generate.asking import animate, connect, edit, extend, generate, loop, storyboard
    from kinema.generate.loading import load
    from kinema.generate.request import Request
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

_HOMES = {
    **dict.fromkeys(("animate", "connect", "edit", "extend", "loop", "storyboard"), "kinema.generate.asking"),
    "load": "kinema.generate.loading",
    "Request": "kinema.generate.request",
    "Video": "kinema.video",
}


def __getattr__(name: str) -> object:
    """The public object called `name`, from the module that defines it."""
    if (
        name == "generate"
    ):  # the name of a subpackage too, which is callable: whichever was there first, it is the same object
        return import_module("kinema.generate")
    if name not in _HOMES:
        raise AttributeError(f"module 'kinema' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
