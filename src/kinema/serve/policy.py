"""Which prompts a server accepts: all, those without listed words, or what a moderations endpoint passes."""

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from kinema.errors import ServeError
from kinema.serve.fetch import FetchError, send

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Refusal:
    """Why a prompt is refused. `rule` is logged; the caller gets `message`."""

    rule: str
    message: str = "Your request was blocked by the policy of this server."


class Policy(Protocol):
    """Checks the prompts of a request before it is stored."""

    name: str

    def check(self, prompts: list[str]) -> Refusal | None:
        """The refusal, or None. May take as long as a request to another server."""
        ...


class NoPolicy:
    """Accepts every prompt."""

    name = "off"

    def check(self, prompts: list[str]) -> Refusal | None:
        """None."""
        return None


class WordList:
    """Refuses prompts with a listed word or phrase, compared after NFKC and case folding."""

    name = "words"

    def __init__(self, file: Path) -> None:
        """`file` has one word or phrase a line; `#` begins a comment. Raises `ServeError`."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"the word list {file} cannot be read: {error}") from None
        listed = [folded(line.split("#")[0]) for line in lines]
        self.patterns = [(word, _pattern(word)) for word in listed if word]

    def check(self, prompts: list[str]) -> Refusal | None:
        """See `Policy.check`."""
        text = "\n".join(map(folded, prompts))
        return next(
            (Refusal(f"word:{word}") for word, pattern in self.patterns if pattern.search(text)), None
        )


class Endpoint:
    """Asks an endpoint of OpenAI's `/v1/moderations` shape. Refuses when it does not answer."""

    name = "endpoint"

    def __init__(self, url: str) -> None:
        self.url = url

    def check(self, prompts: list[str]) -> Refusal | None:
        """See `Policy.check`."""
        body = json.dumps({"input": [prompt for prompt in prompts if prompt]}).encode()
        host = urlsplit(self.url).hostname or ""
        headers = {"content-type": "application/json"}
        try:  # the operator named this address, so it may be a private one
            status, _, answer = send(
                "POST", self.url, body, headers, timeout_s=TIMEOUT_S, private_hosts=(host,)
            )
            results = json.loads(answer)["results"] if status == 200 else None
        except (FetchError, ValueError, KeyError, TypeError):
            results = None
        if results is None:
            return Refusal(
                "endpoint:unavailable", "The moderation of this server does not answer: try again later."
            )
        flagged = [result for result in results if result.get("flagged")]
        if not flagged:
            return None
        named = [name for name, is_hit in flagged[0].get("categories", {}).items() if is_hit]
        return Refusal(f"endpoint:{','.join(named) or 'flagged'}")


def make_policy(text: str) -> Policy:
    """The policy that an operator names: off, words:FILE, or an address. Raises `ServeError`."""
    if text == "off":
        return NoPolicy()
    if text.startswith("words:"):
        return WordList(Path(text.removeprefix("words:")))
    if text.startswith(("http://", "https://")):
        return Endpoint(text)
    raise ServeError(
        f"policy '{text}' is unknown: use off, words:FILE, or the address of a moderations endpoint"
    )


def folded(text: str) -> str:
    """Text for comparison: NFKC, case folded, without invisible characters, single spaces."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(visible.split())


def _pattern(word: str) -> re.Pattern[str]:
    """Matches a whole word; words of scripts without spaces match anywhere."""
    edge = r"\b" if word.isascii() else ""
    return re.compile(edge + re.escape(word) + edge)
