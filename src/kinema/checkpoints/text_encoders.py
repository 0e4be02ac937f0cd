"""Text encoders in folders: ours with its weights in the model folder, or the one of another model, which a
model folder names and does not copy.

Another model's encoder is a folder of transformers' layout: T5, UMT5, CLIP, or a causal language model. Its
tokenizer is in the same folder or in `tokenizer` next to it, as diffusers' folders have it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kinema.checkpoints.components import CLIP_CLASS, load_clip, write_component
from kinema.checkpoints.manifest import CONFIG, TOKENIZER
from kinema.config import from_dict, load, to_dict
from kinema.device import CPU, uses_bf16
from kinema.errors import ConfigError, ModelError
from kinema.files import file_fingerprint, read_json, write_json
from kinema.models.clip import CLIP
from kinema.models.conditioning import TextEncoder
from kinema.models.text_encoders import PLACE, TEXT_SETTINGS, HiddenStates, TextSettings
from kinema.registry import lookup

SOURCE_CLASS = "KinemaTextSource"
"""Class in the config.json of a model's text_encoder folder that names a folder elsewhere."""
ENVIRONMENT = "KINEMA_TEXT_ENCODER"
"""Variable with the folder of the text encoder, for a model whose encoder has moved."""


@dataclass(frozen=True)
class TextSource:
    """A text encoder in a folder of its own, and which of its states are used."""

    path: str
    kind: str
    """A name in `TEXT_ENCODERS`."""
    text_width: int
    fingerprint: str
    """See `file_fingerprint`. The same folder elsewhere has the same."""
    settings: TextSettings = field(default_factory=TextSettings)

    @property
    def max_length(self) -> int:
        """The largest number of states of a prompt."""
        return self.settings.max_length

    @property
    def identity(self) -> dict[str, Any]:
        """All that the states depend on, as plain JSON."""
        return {"fingerprint": self.fingerprint, "settings": to_dict(self.settings)}

    def open(self, device: torch.device = CPU, *, keep: bool = False) -> TextEncoder:
        """The encoder. With `keep` its weights stay in memory between prompts."""
        return TEXT_ENCODERS[self.kind].load(Path(self.path), self.settings, device, keep)


class EncoderSizes(NamedTuple):
    """The sizes of a text encoder. `max_length` is the largest number of tokens that it takes."""

    width: int
    num_layers: int
    max_length: int


@dataclass(frozen=True)
class TextEncoderEntry:
    """One kind of text encoder."""

    is_mine: Callable[[Mapping[str, Any]], bool]
    """Whether a config.json is of this kind."""
    sizes: Callable[[Path], EncoderSizes]
    """The sizes of an encoder in a folder. No weights are read."""
    load: Callable[[Path, TextSettings, torch.device, bool], TextEncoder]
    """The encoder in a folder, on a device; the last argument is whether its weights stay in memory."""


def text_source(text: str) -> TextSource:
    """The text encoder that a recipe's `text` names: DIR, or DIR:SETTING.

    SETTING is the number of a layer, a name in `TEXT_SETTINGS` or a TOML file with the fields of
    `TextSettings`. Raises `ModelError` for a folder without a text encoder, `ConfigError` and `UnknownName`
    for a wrong setting.
    """
    path, _, name = text.rpartition(":")
    if not path or Path(text).exists():
        path, name = text, ""
    if not name:
        settings = TextSettings()
    elif name.lstrip("-").isdecimal():
        settings = TextSettings(layer=int(name))
    elif name.endswith(".toml"):
        settings = load(TextSettings, Path(name))
    else:
        settings = lookup(TEXT_SETTINGS, name, kind="setting of a text encoder")

    folder = Path(path)
    kind = kind_of(folder)
    width, num_layers, max_length = TEXT_ENCODERS[kind].sizes(folder)
    settings = replace(settings, max_length=min(settings.max_length, max_length))
    if not -num_layers - 1 <= settings.layer <= num_layers:
        raise ConfigError(
            f"{folder} has the layers 0 to {num_layers}, and -1 for the last: not {settings.layer}"
        )
    return TextSource(str(folder.resolve()), kind, width, file_fingerprint(folder), settings)


def kind_of(folder: Path) -> str:
    """The name in `TEXT_ENCODERS` of the encoder in `folder`. Raises `ModelError` if there is none."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is not the folder of a text encoder: it has no {CONFIG}")
    config = read_json(folder / CONFIG)
    for name, entry in TEXT_ENCODERS.items():
        if entry.is_mine(config):
            return name
    found = config.get("model_type", config.get("_class_name"))
    raise ModelError(f"{folder} is of type {found}, which is no text encoder: use {', '.join(TEXT_ENCODERS)}")


def save_text_encoder(model: Path, encoder: CLIP | TextSource, dtype: torch.dtype) -> None:
    """Write the folders text_encoder and tokenizer of a model: weights of our CLIP, the name of another."""
    if isinstance(encoder, CLIP):
        write_component(model / "text_encoder", encoder, dtype)
        (model / "tokenizer").mkdir()
        encoder.tokenizer.save(model / "tokenizer" / TOKENIZER)
        return
    (model / "text_encoder").mkdir()
    write_json(model / "text_encoder" / CONFIG, {"_class_name": SOURCE_CLASS, **to_dict(encoder)})


def find_text_encoder(model: Path) -> TextSource | None:
    """The text encoder that a model folder names; None for our CLIP, whose weights the folder holds.

    Raises `ModelError` if that encoder is not at its path, or not the one of the training.
    """
    file = model / "text_encoder" / CONFIG
    config = read_json(file) if file.is_file() else {}
    if config.pop("_class_name", None) != SOURCE_CLASS:
        return None

    source = from_dict(TextSource, config)
    path = Path(os.environ.get(ENVIRONMENT, source.path))
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"{model} was trained with the {source.kind} text encoder of {source.path}, and {path} has none: "
            f"put it there, or set the environment variable {ENVIRONMENT} to its folder"
        )
    if (found := file_fingerprint(path)) != source.fingerprint:
        raise ModelError(
            f"{path} is not the text encoder that {model} was trained with: its fingerprint is {found} "
            f"instead of {source.fingerprint}; set the environment variable {ENVIRONMENT} to its folder"
        )
    return replace(source, path=str(path))


def load_text_encoder(model: Path, device: torch.device | None = None) -> TextEncoder:
    """The text encoder of a model folder: the CLIP in it, or the one that it names. Raises `ModelError`."""
    source = find_text_encoder(model)
    return load_clip(model, device) if source is None else source.open(device or CPU)


def _load_clip(folder: Path, settings: TextSettings, device: torch.device, keep: bool) -> TextEncoder:
    if (settings.layer, settings.template) != (TextSettings.layer, TextSettings.template):
        raise ConfigError(
            f"{folder} is a CLIP of Kinema, which has no layers or templates: leave :SETTING out"
        )
    return load_clip(folder, device)


def _clip_sizes(folder: Path) -> EncoderSizes:
    config = read_json(folder / CONFIG)
    return EncoderSizes(config["text_width"], config["text_layers"], config["max_length"])


def transformers_module(user: str) -> Any:
    """The transformers package. Raises `ConfigError` with the install command if it is missing; `user` is the
    beginning of its line.
    """
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{user} transformers: pip install 'kinema[wan]'") from None
    return transformers


def _sizes(folder: Path) -> EncoderSizes:
    auto = transformers_module(f"the text encoder {folder} needs").AutoConfig
    text = auto.from_pretrained(folder, local_files_only=True).get_text_config()
    max_length = getattr(text, "max_position_embeddings", sys.maxsize)  # T5 has relative positions
    return EncoderSizes(int(text.hidden_size), int(text.num_hidden_layers), int(max_length))


def _load_states(
    class_name: str, folder: Path, settings: TextSettings, device: torch.device, keep: bool
) -> TextEncoder:
    """The encoder around the network of a class of transformers."""
    return HiddenStates(
        partial(load_network, class_name, folder, device),
        _tokens(folder, settings),
        _sizes(folder).width,
        max_length=settings.max_length,
        layer=settings.layer,
        keep=keep,
    )


def load_network(class_name: str, folder: Path, device: torch.device) -> nn.Module:
    """The text encoder of a class of transformers in a folder, in eval mode.

    Raises `ModelError` for a folder that cannot be loaded or lacks tensors.
    """
    transformers = transformers_module(f"the text encoder {folder} needs")
    dtype = torch.bfloat16 if uses_bf16(device, "auto") else torch.float32
    try:
        network, report = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder} lacks {len(missing)} tensors of {class_name}, {missing[0]} first")
    module: nn.Module = network.to(device).eval().requires_grad_(False)
    return module


def _tokens(folder: Path, settings: TextSettings) -> Callable[[str], tuple[list[int], int]]:
    """A function from a prompt to the tokens of its template and the number of tokens before the prompt."""
    home = folder if (folder / "tokenizer_config.json").is_file() else folder.parent / "tokenizer"
    auto = transformers_module(f"the text encoder {folder} needs").AutoTokenizer
    try:
        tokenizer = auto.from_pretrained(home, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} has no tokenizer that can be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    prefix = settings.template.partition(PLACE)[0]

    def tokens(text: str) -> tuple[list[int], int]:
        whole = settings.template.replace(PLACE, text)
        if not prefix:
            return tokenizer(whole, truncation=True, max_length=settings.max_length)["input_ids"], 0
        spans = tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
        crop = next((i for i, (_, end) in enumerate(spans) if end > len(prefix)), len(spans))
        ids = tokenizer(whole, truncation=True, max_length=crop + settings.max_length)["input_ids"]
        return ids, crop

    return tokens


def _states_entry(class_name: str, *model_types: str) -> TextEncoderEntry:
    return TextEncoderEntry(
        is_mine=lambda config: config.get("model_type") in model_types,
        sizes=_sizes,
        load=partial(_load_states, class_name),
    )


TEXT_ENCODERS: dict[str, TextEncoderEntry] = {
    "clip": TextEncoderEntry(
        is_mine=lambda config: config.get("_class_name") == CLIP_CLASS,
        sizes=_clip_sizes,
        load=_load_clip,
    ),
    "t5": _states_entry("T5EncoderModel", "t5"),
    "umt5": _states_entry("UMT5EncoderModel", "umt5"),
    "clip_hf": _states_entry("CLIPTextModel", "clip", "clip_text_model"),
    "llm": TextEncoderEntry(
        is_mine=lambda config: "model_type" in config and not config.get("is_encoder_decoder", False),
        sizes=_sizes,
        load=partial(_load_states, "AutoModel"),
    ),
}
"""The kinds of text encoders, in the order in which a folder is tried."""
