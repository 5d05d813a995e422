"""Read the values of options: numbers, sizes, times, networks, each also from `@FILE`."""

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.python import usage

from sockservice.limits.access import Network
from sockservice.limits.access import network as readNetwork
from sockservice.net.bind.options import SocketOption, socketOption

#: What a letter behind a number of bytes stands for.
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: What a letter behind a number of seconds stands for.
TIMES = {"m": 60, "h": 3600, "d": 86400}


class ValueReader(NamedTuple):
    """How the values of an option are read and written."""

    #: What stands for a value where the option is described.
    stands: str
    #: Gives the value that a text is; raises ValueError, which says what is wrong with it.
    read: Callable[[str], Any]
    #: Writes a value for people.
    write: Callable[[Any], str] = str


def count(least: int, most: int, things: str) -> ValueReader:
    """Read a whole number of `things`, which may be in a file."""
    return ValueReader("NUMBER", _whole(least, most, f"a number of {things}"))


def seconds(least: int, most: int) -> ValueReader:
    """Read a whole number of seconds, which may be in a file."""
    return ValueReader("SECONDS", _whole(least, most, "a number of seconds"), "{} s".format)


def length(least: int, most: int) -> ValueReader:
    """Read a whole number of bytes without a unit, which may be in a file."""
    return ValueReader("BYTES", _whole(least, most, "a number of bytes"), "{} bytes".format)


def size(least: int, example: str) -> ValueReader:
    """Read a number of bytes with a unit, as in `example`; it may be in a file."""
    return ValueReader(
        "SIZE", _scaled(SIZES, example, least), lambda value: _unscaled(SIZES, value)
    )


def age(example: str) -> ValueReader:
    """Read a number of seconds with a unit, as in `example`; it may be in a file."""
    return ValueReader("AGE", _scaled(TIMES, example, 1), lambda value: _unscaled(TIMES, value))


def text(stands: str) -> ValueReader:
    """Take the text itself."""
    return ValueReader(stands, str)


def _whole(least: int, most: int, unit: str) -> Callable[[str], int]:
    def read(given: str) -> int:
        found = _read(given)
        # int() alone would also take " 5", "5_0" and other scripts' digits.
        # Nor does it take a number of thousands of digits.
        if found.isascii() and found.isdigit() and len(found) < 20 and least <= int(found) <= most:
            return int(found)
        raise ValueError(f"not {unit}, a whole number from {least} to {most}")

    return read


def _scaled(units: dict[str, int], example: str, least: int) -> Callable[[str], int]:
    def read(given: str) -> int:
        found = _read(given)
        number, unit = (found[:-1], found[-1:]) if found[-1:] in units else (found, "")
        if number.isascii() and number.isdigit() and len(number) < 20 and int(number) >= least:
            return int(number) * units.get(unit, 1)
        raise ValueError(f"not a number with a unit, as {example}")

    return read


def _unscaled(units: dict[str, int], value: int) -> str:
    for unit, factor in sorted(units.items(), key=lambda each: -each[1]):
        if value and not value % factor:
            return f"{value // factor}{unit}"
    return str(value)


def _words(given: str) -> list[str]:
    """Give what is on the lines of the file that `@FILE` names, comments left out."""
    try:
        with open(given[1:]) as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except OSError as problem:
        raise ValueError(problem.strerror) from None
    except ValueError:
        raise ValueError("no text") from None
    return [line for line in lines if line]


def _read(given: str) -> str:
    """Give what is in the file, if `given` is `@FILE`."""
    return " ".join(_words(given)) if given.startswith("@") else given


def _networks(given: str) -> list[Network]:
    return [readNetwork(word) for word in (_words(given) if given.startswith("@") else [given])]


def _endpoints(given: str) -> list[str]:
    return [given]


def _socketOptions(given: str) -> list[SocketOption]:
    return [socketOption(given)]


def _host(given: str) -> str:
    if given:
        return given
    raise usage.UsageError("--host: empty; an address or a name is wanted, `::` for all")


#: A host to listen on.
host = ValueReader("ADDRESS", _host)
#: A TCP or UDP port, which may be in a file.
port = ValueReader("PORT", _whole(0, 65535, "a port number"))
#: A protocol and where it is served; a list of one.
endpoints = ValueReader("PROTOCOL@ENDPOINT", _endpoints)
#: A network, or those in a file.
networks = ValueReader("NETWORK", _networks)
#: An option of sockets; a list of one.
socketOptions = ValueReader("NAME=VALUE", _socketOptions)


def absolute(word: str) -> str:
    """Give a word of the command line with the whole path of the file that it names, if any."""
    found = re.fullmatch(r"((?:--[\w-]+=)?@)(.+)", word, re.DOTALL)
    return found[1] + os.path.abspath(found[2]) if found else word
