"""Inputs: those kept, and those made of them by chance."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

SEEDS = Path(__file__).parent / "seeds"

#: Longest input, in bytes.
LONGEST = 6000

#: What counts in one of the formats or another.
WORDS = [
    *(b"\n", b"\r", b"\r\n", b"\r\0", b"\0", b" ", b"a", b"0", b"\xff"),
    *(bytes((255, command)) for command in (236, 240, 241, 242, 244, 246, 250, 251, 253, 254)),
    *(b"\xff\xfd\x06", b"\xff\xf4\xff\xfd\x06", b"\xff\xfb\x1f", b"\n\xff\xf4x\r\n"),
    *(b"\xff\xfa\x18\0VT100\xff\xf0", b"\xff\xfa" + b"x" * 4200, b"text " * 210),
    *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.1 ", b"::1 ", b"65536"),
    *(b"<13>", b"<", b"7 ", b"1000 ", b" syslog ", b"2 syslog 3 abc\n", b"\n0 hint 0\n"),
    *(b"\r\n\r\n\0\r\nQUIT\n", b"\x21\x11\0\x0c", b"\x20\0\0\0", b"\x21\x21\0\x24"),
]


def kept(target: str) -> list[bytes]:
    """Give the inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((SEEDS / target).iterdir())]


def mutated(seeds: Sequence[bytes], chance: Random) -> bytes:
    """Make an input of one or two others."""
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 2, 4, 8, 16))):
        a, b = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
        match chance.randrange(7):
            case 0:
                data = data[:a] + chance.choice(WORDS) + data[a:]
            case 1:
                data = data[:a] + chance.choice(WORDS) + data[b:]
            case 2:
                data = data[:a] + data[b:]
            case 3:
                data = data[:b] + data[a:b] * chance.choice((1, 1, 2, 9)) + data[b:]
            case 4:
                data = data[:a] + chance.randbytes(chance.choice((1, 1, 2, 4, 30))) + data[a:]
            case 5:
                data = data[:a] + chance.choice(seeds) + data[b:]
            case 6 if data:
                at = min(a, len(data) - 1)
                data = data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
        data = data[:LONGEST]
    return data


def cuts(data: bytes, chance: Random, most: int = 12) -> list[bytes]:
    """Cut an input into chunks, by chance; none of them is empty."""
    places = {chance.randint(0, len(data)) for _ in range(chance.randint(0, most))}
    return [data[a:b] for a, b in pairwise(sorted(places | {0, len(data)}))]


def bytewise(data: bytes) -> list[bytes]:
    """Cut an input into its bytes."""
    return [data[at : at + 1] for at in range(len(data))]
