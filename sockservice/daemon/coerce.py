"""Read the values of options: numbers, sizes, times, networks, each also from `@FILE`."""

import os
import re
from collections.abc import Callable

from twisted.python import usage

from sockservice.limits.access import Network, network

#: What a letter behind a number of bytes stands for.
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def number(option: str, least: int, most: int, unit: str) -> Callable[[str], int]:
    """Make a coerce function for a whole number, which may be in a file."""

    def coerce(given: str) -> int:
        text = _read(option, given)
        # int() alone would also take " 5", "5_0" and other scripts' digits.
        # Nor does it take a number of thousands of digits.
        if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise usage.UsageError(
            f"--{option} {given}: not {unit}, a whole number from {least} to {most}"
        )

    return coerce


def _words(option: str, text: str) -> list[str]:
    """Give what is on the lines of the file that `@FILE` names, comments left out."""
    try:
        with open(text[1:]) as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "no text"
        raise usage.UsageError(f"--{option} {text}: {reason}") from None
    return [line for line in lines if line]


def _read(option: str, text: str) -> str:
    """Give what is in the file, if `text` is `@FILE`."""
    return " ".join(_words(option, text)) if text.startswith("@") else text


def networks(option: str, text: str) -> list[Network]:
    """Read a network, or those in a file."""
    words = _words(option, text) if text.startswith("@") else [text]
    try:
        return [network(word) for word in words]
    except ValueError as problem:
        raise usage.UsageError(f"--{option} {text}: {problem}") from None


def absolute(word: str) -> str:
    """Give a word of the command line with the whole path of the file that it names, if any."""
    found = re.fullmatch(r"((?:--[\w-]+=)?@)(.+)", word, re.DOTALL)
    return found[1] + os.path.abspath(found[2]) if found else word


def hostName(text: str) -> str:
    if text:
        return text
    raise usage.UsageError("--host: empty; an address or a name is wanted, `::` for all")


def scaled(
    option: str, units: dict[str, int], example: str, least: int = 1
) -> Callable[[str], int]:
    """Make a coerce function for a whole number with a unit, which may be in a file."""

    def coerce(given: str) -> int:
        text = _read(option, given)
        number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "")
        if number.isascii() and number.isdigit() and len(number) < 20 and int(number) >= least:
            return int(number) * units.get(unit, 1)
        raise usage.UsageError(f"--{option} {given}: not a number with a unit, as {example}")

    return coerce
