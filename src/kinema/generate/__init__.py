"""Generation: from a request to a video.

The package is callable, because its name is also the name of the public function: `kinema.generate("a penguin walks")`
is `kinema.generate.asking.generate("a penguin walks")` whether or not some submodule has been imported before.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinema.generate.pipeline import Result


class _Generate(ModuleType):
    """This module, as a function."""

    def __call__(self, prompt: str, **options: Any) -> "Result":
        """The video that shows `prompt`; see `kinema.generate.asking.generate`."""
        from kinema.generate.asking import generate

        return generate(prompt, **options)


sys.modules[__name__].__class__ = _Generate
