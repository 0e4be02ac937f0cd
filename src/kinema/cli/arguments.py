"""Types of command-line arguments that several verbs take."""

import argparse
import re
from typing import NoReturn

from kinema.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `ConfigError` for invalid arguments instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise `ConfigError` with the message and a pointer to the verb's help."""
        raise ConfigError(f"{message}; see '{self.prog} --help'")


def size(text: str) -> tuple[int, int]:
    """(width, height) in pixels from "WxH", e.g. "128x128"."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match or not int(match[1]) or not int(match[2]):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a size: write WIDTHxHEIGHT in pixels, e.g. 128x128"
        )
    return int(match[1]), int(match[2])


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def interval(text: str) -> tuple[float, float]:
    """(low, high) from "0.3,0.9"."""
    low, _, high = text.partition(",")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an interval: write LOW,HIGH, e.g. 0.3,0.9"
        ) from None
