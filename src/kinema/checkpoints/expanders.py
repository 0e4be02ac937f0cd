"""Expanders that run a network, and the choice of an expander by name, address or path."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from kinema import config
from kinema.checkpoints.components import format_of, load_component
from kinema.checkpoints.manifest import CONFIG
from kinema.checkpoints.shipped import SHIPPED, shipped_expander
from kinema.endpoint import Endpoint
from kinema.errors import ModelError
from kinema.files import read_json, sha256_of
from kinema.models.expander import Expander
from kinema.prompts.expansion import (
    ChatExpander,
    PromptExpander,
    PromptKind,
    system_prompt,
)
from kinema.prompts.fidelity import Omission, is_same_word, negations

MAX_NEW_TOKENS = 160


class KinemaExpander:
    """The network of `kinema.models.expander`, from the package or from `folder`.

    It omits nothing, so one proposal is enough.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Raises `ModelError` if the folder is incomplete."""
        folder = folder or shipped_expander()
        self.network = load_component(folder, Expander)
        self.name = f"kinema-expander {sha256_of(folder / format_of(Expander).weights)[:12]}"
        self.words = self.network.config.words

    def propose(
        self,
        prompt: str,
        kind: PromptKind,
        *,
        picture: bytes | None = None,
        missing: Sequence[Omission] = (),
        seed: int = 0,
    ) -> str:
        """See `PromptExpander`. The network adds no word that the prompt negates."""
        negated = [word for _, word in negations(prompt, self.words)]

        def may_add(word: str) -> bool:
            is_chinese = not word.isascii()
            return not any(is_same_word(word, other) or (is_chinese and other in word) for other in negated)

        return self.network.expand(prompt, kind=kind, seed=seed, may_add=may_add)


class CausalLMExpander:
    """A causal language model in a folder of transformers' layout, with its chat template if it has one."""

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError` if transformers is not installed or cannot load the folder."""
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise ModelError(
                f"{folder} is a language model, and transformers is not installed ({error}): pip install "
                "'kinema[wan]'"
            ) from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder} cannot be loaded as a causal language model: {' '.join(str(error).split())[:300]}"
            ) from error
        self.name = f"{folder.name} (transformers)"
        self.words: tuple[str, ...] = ()

    def propose(
        self, prompt: str, kind: PromptKind, *, picture: bytes | None, missing: Sequence[Omission], seed: int
    ) -> str:
        """See `PromptExpander`. Decoding is greedy, at most `MAX_NEW_TOKENS` tokens."""
        instructions = system_prompt(kind, missing)
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if has_template:
            messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        else:
            text = f"{instructions}\n\nDescription: {prompt}\nRewritten:"

        tokens = self.tokenizer(text, return_tensors="pt", add_special_tokens=not has_template)
        tokens.pop("token_type_ids", None)
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.tokenizer.eos_token_id
        output = self.model.generate(
            **tokens, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=pad
        )
        answer = output[0, tokens["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(answer, skip_special_tokens=True))


@lru_cache(maxsize=2)
def load_expander(source: str = SHIPPED) -> PromptExpander:
    """The expander that `source` names: "shipped", the address of a chat endpoint, a .toml file or a folder.

    The file sets the fields of `kinema.endpoint.Endpoint`. The folder is an export of recipes/expander.toml,
    or a causal language model of transformers.

    Raises `ConfigError` for invalid settings and `ModelError` for a folder that holds neither.
    """
    if source == SHIPPED:
        return KinemaExpander()
    if source.startswith(("http://", "https://")):
        return ChatExpander(Endpoint(source))

    path = Path(source)
    if path.suffix == ".toml":
        return ChatExpander(config.load(Endpoint, path))
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"'{source}' is not an expander: give the address of an endpoint, a .toml file with its "
            "settings, or the folder of a model"
        )
    is_transformers = "model_type" in read_json(path / CONFIG)
    return CausalLMExpander(path) if is_transformers else KinemaExpander(path)
