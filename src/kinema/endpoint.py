"""A client for chat endpoints with OpenAI's protocol (`POST URL/chat/completions`), hosted or local."""

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
RETRIED_CODES = (408, 409, 425, 429, 500, 502, 503, 504)
"""Status codes of temporary failures: the server is busy or restarting."""
MAX_SHOWN_CHARACTERS = 200
"""Characters of an answer in an error message."""


@dataclass(frozen=True)
class Endpoint:
    """A chat model behind an address. Raises `ConfigError` for an invalid address or number."""

    url: str
    """Base address, e.g. http://localhost:8000/v1."""
    model: str = "default"
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable of the key, which is never stored or shown. If it is not set, no key is sent."""
    temperature: float = 0.0
    max_tokens: int = 300
    timeout_s: float = 60.0
    """Timeout of one attempt."""
    retries: int = 3
    """Further attempts after a temporary failure."""
    pause_s: float = 0.5
    """Pause before the first retry; each further pause is twice as long."""

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
        """The model's answer to `text` (and PNG `pictures`) with `instructions` as the system prompt,
        stripped.

        Raises `EndpointError` that names the address if every attempt fails or the answer is not a chat
        completion.
        """
        content: Any = text
        if pictures:
            urls = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
            content = [
                {"type": "text", "text": text},
                *({"type": "image_url", "image_url": {"url": url}} for url in urls),
            ]

        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": content}]
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

        response = self._post(json.dumps(body).encode())
        try:
            answer = json.loads(response)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            answer = None
        if not isinstance(answer, str) or not answer.strip():
            raise EndpointError(f"{self._address} gave no chat completion: {_shown(response)}")
        return answer.strip()

    @property
    def _address(self) -> str:
        return self.url.rstrip("/").removesuffix(PATH) + PATH

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"

        request = urllib.request.Request(self._address, data=body, headers=headers)
        failure = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    return bytes(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    failure = f"HTTP {error.code}: {_shown(error.read())}"
                if error.code not in RETRIED_CODES:
                    raise EndpointError(
                        f"{self._address} refused: {failure}{_hint(error.code, self)}"
                    ) from None
            except OSError as error:  # URLError, a timeout and a reset connection are OSErrors
                failure = str(getattr(error, "reason", error)) or type(error).__name__

        tries = f"{self.retries + 1} tries" if self.retries else "1 try"
        raise EndpointError(
            f"{self._address} cannot be reached after {tries} of up to {self.timeout_s:g} s: {failure}"
        )


def _hint(code: int, endpoint: Endpoint) -> str:
    if code in (401, 403):
        return f" (the key is read from the environment variable {endpoint.key_variable})"
    return f" (the model asked for is '{endpoint.model}')" if code in (400, 404) else ""


def _shown(answer: bytes) -> str:
    return " ".join(answer.decode(errors="replace").split())[:MAX_SHOWN_CHARACTERS] or "an empty answer"
