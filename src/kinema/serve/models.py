"""The models that a server offers, described without loading them."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from kinema import config
from kinema.checkpoints.manifest import CONFIG, MANIFEST, TOKENIZER, Manifest, load_manifest
from kinema.checkpoints.shipped import SHIPPED, shipped_model
from kinema.errors import ModelError, RequestError, ServeError
from kinema.files import read_json
from kinema.generation.plan import Plan, make_plan
from kinema.generation.request import Request
from kinema.prompts import Tokenizer, load_tokenizer
from kinema.prompts.reading import PromptReport, read_prompt
from kinema.registry import lookup

SHIPPED_NAME = "kinema-nano"


@dataclass(frozen=True)
class ServedModel:
    """A model as requests are checked against it."""

    name: str
    path: str
    manifest: Manifest
    temporal_factor: int
    tokenizer: Tokenizer | None = field(default=None, compare=False)

    def plan(self, request: Request) -> Plan:
        """What the model will do for a request. Raises `RequestError` for what it cannot do."""
        return make_plan(request, self.manifest, temporal_factor=self.temporal_factor)

    def read_prompt(self, prompt: str) -> PromptReport | None:
        """How the model reads a prompt, or None if only its text encoder can tell."""
        return None if self.tokenizer is None else read_prompt(self.tokenizer, prompt)


def describe(name: str, path: str) -> ServedModel:
    """The model at `path`, by its files without weights. Raises `ModelError`."""
    folder = shipped_model() if path == SHIPPED else Path(path)
    if (folder / MANIFEST).is_file():
        downsamples = read_json(folder / "vae" / CONFIG)["temperal_downsample"]
        vocabulary = folder / "tokenizer" / TOKENIZER
        tokenizer = load_tokenizer(vocabulary) if vocabulary.is_file() else None
        return ServedModel(name, path, load_manifest(folder), 2 ** sum(downsamples), tokenizer)

    command = [sys.executable, "-m", "kinema.serve.describe", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(
            done.stderr.strip().splitlines()[-1] if done.stderr else f"{path} cannot be described"
        )
    values = json.loads(done.stdout)
    return ServedModel(name, path, config.from_dict(Manifest, values["manifest"]), values["temporal_factor"])


class Catalogue:
    """The served models by name and by alias. The first is the default."""

    def __init__(self, models: dict[str, ServedModel], aliases: dict[str, str]) -> None:
        """Raises `ServeError` for an alias of a model that is not served."""
        for alias, name in aliases.items():
            if name not in models:
                raise ServeError(f"alias {alias}={name}: {name} is not served ({', '.join(models)})")
        self.models, self.aliases = models, aliases

    def find(self, name: str | None) -> ServedModel:
        """The model that a request names. Raises `RequestError`."""
        if name is None:
            return next(iter(self.models.values()))
        known = {**self.models, **{alias: self.models[target] for alias, target in self.aliases.items()}}
        try:
            return lookup(known, name, kind="model")
        except ValueError as error:
            raise RequestError(str(error)) from None


def parse_models(words: list[str]) -> dict[str, str]:
    """Paths by name from NAME=PATH or PATH words; the shipped model without any."""
    models = {}
    for word in words or [SHIPPED]:
        name, equals, path = word.partition("=")
        if not equals:
            name, path = (SHIPPED_NAME if word == SHIPPED else Path(word).name), word
        models[name] = path
    return models
