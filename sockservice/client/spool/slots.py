"""Keep a spool's few numbers durably, in two slots of a file that are written in turn."""

import os
from contextlib import suppress
from typing import NamedTuple, Self
from zlib import crc32

#: Bytes of a slot: what is written to one never touches the other.
SLOT = 4096


class Entry(NamedTuple):
    """What a spool remembers. Offsets count the bytes of all that it ever took."""

    session: str
    #: Lines of the session before `begin`, and their CRC-32; -1 until the server has said.
    position: int
    crc: int
    #: Where the first line begins that may not be stored.
    begin: int
    #: Where what is durable ends.
    end: int
    #: The run of the system in which this was written.
    boot: str
    #: The pipe that was read, or "-".
    source: str

    def encode(self) -> str:
        return " ".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `encode` has written.

        :raises ValueError: It is nothing of the kind.
        """
        session, position, crc, begin, end, boot, source = text.split(" ")
        return cls(session, int(position), int(crc), int(begin), int(end), boot, source)


class Slots:
    """The file at `path`; `entry` is what was last written to it, None in a new one.

    The file has its full size from the beginning: writing to it needs no room on the disk.

    :raises OSError: It can't be read or made.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._serial = 0
        self.entry: Entry | None = None
        for number in range(2):
            # A slot that was being written when the power failed is not whole.
            with suppress(ValueError):
                self._take(os.pread(self._file, SLOT, number * SLOT).decode("ascii"))
        if os.fstat(self._file).st_size < 2 * SLOT:
            os.posix_fallocate(self._file, 0, 2 * SLOT)
            os.fsync(self._file)

    def write(self, entry: Entry) -> None:
        """Remember `entry`, durably.

        :raises OSError: It can't be written; what was written before is still there.
        """
        text = f"{self._serial + 1} {entry.encode()}"
        data = f"{crc32(text.encode()):08x} {text}\n".encode().ljust(SLOT, b"\0")
        os.pwrite(self._file, data, (self._serial + 1) % 2 * SLOT)
        os.fdatasync(self._file)
        self._serial += 1
        self.entry = entry

    def close(self) -> None:
        os.close(self._file)

    def _take(self, slot: str) -> None:
        sum, _, rest = slot.partition("\n")[0].partition(" ")
        if int(sum, 16) != crc32(rest.encode()):
            return
        serial, _, text = rest.partition(" ")
        if int(serial) > self._serial:
            self.entry, self._serial = Entry.parse(text), int(serial)
