"""Chat endpoints that speak OpenAI's protocol (`POST URL/chat/completions`): hosted ones, vLLM, llama.cpp, Ollama and others."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kinema.errors import ConfigError, EndpointError

PATH = "/chat/completions"
WORTH_RETRYING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers that another try may change: the server is busy, restarting or waits for something."""
SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model is asked. Raises `ConfigError` for an address that is none, or a number that makes no sense."""

    url: str
    """The base, e.g. http://localhost:8000/v1."""
    model: str = "default"
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; nothing is sent when it is not set. The key itself is never stored or shown."""
    temperature: float = 0.0
    max_tokens: int = 300
    timeout_s: float = 60.0
    """For one try, from its start to its last byte being waited for."""
    retries: int = 3
    """Further tries after one that failed for a reason which may pass, each after twice as long a pause."""
    pause_s: float = 0.5

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                f"'{self.url}' is not the address of an endpoint: write e.g. http://localhost:8000/v1"
            )
        if self.timeout_s <= 0 or self.retries < 0 or self.pause_s < 0 or self.max_tokens < 1:
            raise ConfigError(
                f"timeout_s={self.timeout_s:g} and max_tokens={self.max_tokens} must be positive, "
                f"retries={self.retries} and pause_s={self.pause_s:g} not negative"
            )

    def ask(self, instructions: str, text: str, pictures: Sequence[bytes] = ()) -> str:
        """What the model answers to `text` (and PNG `pictures`) under `instructions`, stripped.

        Raises `EndpointError` that names the address, when no try succeeds or the answer is not of the protocol.
        """
        content: Any = text
        if pictures:
            urls = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
            content = [
                {"type": "text", "text": text},
                *({"type": "image_url", "image_url": {"url": url}} for url in urls),
            ]
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": content}]
        asked = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        said = self._post(json.dumps(asked).encode())
        try:
            answer = json.loads(said)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            answer = None
        if not isinstance(answer, str) or not answer.strip():
            raise EndpointError(f"{self._address} gave no chat completion: {_shown(said)}")
        return answer.strip()

    @property
    def _address(self) -> str:
        return self.url.rstrip("/").removesuffix(PATH) + PATH

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._address, data=body, headers=headers)
        failed = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    return bytes(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    failed = f"HTTP {error.code}: {_shown(error.read())}"
                if error.code not in WORTH_RETRYING:
                    raise EndpointError(
                        f"{self._address} refused: {failed}{_hint(error.code, self)}"
                    ) from None
            except OSError as error:  # URLError, a timeout and a reset connection are OSErrors
                failed = str(getattr(error, "reason", error)) or type(error).__name__
        tries = f"{self.retries + 1} tries" if self.retries else "1 try"
        raise EndpointError(
            f"{self._address} cannot be reached after {tries} of up to {self.timeout_s:g} s: {failed}"
        )


def _hint(code: int, endpoint: Endpoint) -> str:
    if code in (401, 403):
        return f" (the key is read from the environment variable {endpoint.key_variable})"
    return f" (the model asked for is '{endpoint.model}')" if code in (400, 404) else ""


def _shown(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:SHOWN_CHARACTERS] or "an empty answer"
