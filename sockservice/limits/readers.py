"""Read the values of options: numbers, sizes, times, networks, each also from `@FILE`."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.python import usage

from sockservice.files import contents
from sockservice.limits.access import Network
from sockservice.limits.access import network as readNetwork
from sockservice.net.bind.options import SocketOption, socketOption
from sockservice.wire.plurals import counted

#: Stands for no network at all.
NOBODY = "none"

#: The most that a number may be where nothing else bounds it.
MANY = 10**9

#: Bytes of the longest network: an IPv6 address that ends as IPv4, and a prefix length.
_NETWORK_LONGEST = 49

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
    return ValueReader(
        "BYTES", _whole(least, most, "a number of bytes"), lambda value: counted(value, "byte")
    )


def size(least: int, example: str) -> ValueReader:
    """Read a number of bytes with a unit, as in `example`; it may be in a file."""
    return ValueReader(
        "SIZE", _scaled(SIZES, example, least), lambda value: _unscaled(SIZES, value)
    )


def age(example: str, least: int = 1) -> ValueReader:
    """Read a number of seconds with a unit, as in `example`; it may be in a file."""
    return ValueReader("AGE", _scaled(TIMES, example, least), lambda value: _unscaled(TIMES, value))


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


def _lines(read: bytes) -> list[tuple[int, bytes]]:
    """Give the lines of a file that was read, with their numbers.

    Comments are left out, which may hold any byte, and lines that hold nothing else.
    """
    lines = [line.partition(b"#")[0].strip() for line in read.splitlines()]
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def _ascii(number: int, line: bytes) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError as problem:
        where = line[max(0, problem.start - 20) : problem.start + 20]
        raise ValueError(
            f"line {number}: byte 0x{line[problem.start]:02x} in {ascii(where)[1:]}, "
            "which may stand in a comment only"
        ) from None


def _read(given: str) -> str:
    """Give what is in the file, if `given` is `@FILE`."""
    if not given.startswith("@"):
        return given
    return " ".join(_ascii(*line) for line in _lines(contents(given[1:])))


def _networks(given: str) -> list[Network]:
    if not given.startswith("@"):
        return [] if given == NOBODY else [readNetwork(given)]
    # A list that was cut short by accident is never taken for a shorter one.
    if (read := contents(given[1:])) and not read.endswith((b"\n", b"\r")):
        raise ValueError("its last line does not end, and may be half of one")
    lines = [(number, _ascii(number, line)) for number, line in _lines(read)]
    if not lines:
        raise ValueError(f"it holds no network; if that is meant, let it hold `{NOBODY}`")
    if [word for _, word in lines] == [NOBODY]:
        return []
    return [_network(*line) for line in lines]


def _network(number: int, word: str) -> Network:
    if len(word) > _NETWORK_LONGEST:
        raise ValueError(f"line {number}: longer than any network")
    try:
        return readNetwork(word)
    except ValueError as problem:
        raise ValueError(f"line {number}: {problem}") from None


def _endpoints(given: str) -> list[str]:
    return [given]


def _names(given: str) -> list[str]:
    if re.fullmatch(r"[A-Za-z0-9_.:-]+", given):
        return [given]
    raise ValueError("not a name of a host, or an address")


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
#: A name of a host; a list of one.
names = ValueReader("NAME", _names)
#: A network, or those in a file.
networks = ValueReader("NETWORK", _networks)
#: An option of sockets; a list of one.
socketOptions = ValueReader("NAME=VALUE", _socketOptions)


def words(given: Sequence[str], place: Callable[[str], str]) -> list[str]:
    """Give the words of a command line, each file that is named in them placed."""
    found: list[str] = []
    for before, word in zip(["", *given], given, strict=False):
        # A part of the name is enough for getopt(3).
        if re.fullmatch("--confi?g?", before):
            found.append(place(word))
        elif named := re.fullmatch("(--confi?g?=)(.+)", word, re.DOTALL):
            found.append(named[1] + place(named[2]))
        else:
            found.append(placed(word, place))
    return found


def placed(word: str, place: Callable[[str], str]) -> str:
    """Give a word of the command line with the path of the file that it names, if any, placed."""
    found = re.fullmatch(r"((?:--[\w-]+=|-\w)?@)(.+)", word, re.DOTALL)
    return found[1] + place(found[2]) if found else word
