"""The opening of a session: the hello of the sender, and the server's reply to it."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Self
from zlib import crc32

#: Highest position.
HIGHEST = 2**63 - 1
#: Most characters of a name.
LONGEST = 255
_NAME = re.compile(rf"[A-Za-z0-9._:@/%+-]{{1,{LONGEST}}}")
_POSITION = re.compile(r"[0-9]{1,19}")
_NOTE = re.compile(r"[!-~]{1,512}")


def folded(lines: Iterable[bytes], crc: int = 0) -> int:
    """Return the CRC-32 of a session's bytes after `lines`, if it was `crc` before."""
    return crc32(b"\n".join([*lines, b""]), crc)


class Hello(NamedTuple):
    """A sender's first line."""

    name: str
    at: int | None = None
    note: str | None = None

    def encode(self) -> bytes:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"bad name of a session: {self.name!r}")
        if self.note is not None and not _NOTE.fullmatch(self.note):
            raise ValueError("bad note")
        words = ["session/1", self.name]
        if self.at is not None:
            words.append(f"at={self.at}")
        if self.note is not None:
            words.append(f"note={self.note}")
        return " ".join(words).encode()

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read a first line.

        :raises ValueError: It is no hello, or one with a word that is wrong or not known.
        """
        # What is no ASCII is in no word.
        text = line.decode("ascii", "replace")
        first, *words = text.split(" ")
        kind, slash, version = first.partition("/")
        if kind != "session" or not slash:
            raise ValueError("the first line is no hello, which is: session/1 NAME")
        if version != "1":
            raise ValueError(f"version {ascii(version[:20])[1:-1]} is not known, 1 is")
        name = words.pop(0) if words else ""
        if not _NAME.fullmatch(name):
            raise ValueError("bad name: 1 to 255 of A-Z a-z 0-9 . _ : @ / % + - make one")
        given: dict[str, str] = {}
        for word in words:
            key, _, value = word.partition("=")
            if key not in ("at", "note") or key in given:
                known = "is given twice" if key in given else "is not known; at=, note= are"
                raise ValueError(f"{ascii(word[:40])[1:-1]} {known}")
            given[key] = value
        at, note = given.get("at"), given.get("note")
        if at is not None and not (_POSITION.fullmatch(at) and int(at) <= HIGHEST):
            raise ValueError(f"bad position: a number from 0 to {HIGHEST} is one")
        if note is not None and not _NOTE.fullmatch(note):
            raise ValueError("bad note: 1 to 512 printable bytes without a space make one")
        return cls(name, None if at is None else int(at), note)


class Opened(NamedTuple):
    """The server's reply: what is stored of the session."""

    new: bool
    position: int
    crc: int
    limit: int
    epoch: int
    store: str
    note: str | None = None
    noted: int = 0
    notedCrc: int = 0

    def encode(self) -> bytes:
        said = (
            f"session/1 {'new' if self.new else 'old'} position={self.position} "
            f"crc={self.crc:08x} limit={self.limit} epoch={self.epoch} store={self.store}"
        )
        if self.note is not None:
            said += f" note={self.note} noted={self.noted} notedcrc={self.notedCrc:08x}"
        return said.encode()

    @classmethod
    def parse(cls, reply: bytes) -> Self:
        first, *words = reply.decode("ascii", "replace").split(" ")
        if first != "session/1" or not words or words[0] not in ("new", "old"):
            raise ValueError(f"version {first[8:]} is not known")
        values = dict(word.partition("=")[::2] for word in words[1:])
        try:
            return cls(
                words[0] == "new",
                int(values["position"]),
                int(values["crc"], 16),
                int(values["limit"]),
                int(values["epoch"]),
                values["store"],
                values.get("note"),
                int(values.get("noted", "0")),
                int(values.get("notedcrc", "0"), 16),
            )
        except (KeyError, ValueError) as problem:
            raise ValueError(f"bad or missing {problem}") from None
