"""Read the content of log files, compressed or not."""

import bz2
import gzip
import lzma
import os
import stat
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_RDLCK, F_SETLEASE, F_SETSIG, F_UNLCK, fcntl
from importlib import import_module
from signal import SIGURG
from typing import Any, BinaryIO, Self

#: Bytes of a file's beginning by which it is recognised.
HEAD = 4096
#: Bytes that are read at once where something is skipped.
STEP = 1024 * 1024


class UnreadableFile(Exception):
    """A file is no regular file, is compressed in a way that can't be read, or not yet whole."""


def _zstd() -> tuple[Callable[[BinaryIO], Any] | None, tuple[type[Exception], ...]]:
    """Return what decompresses Zstandard, and its errors: Python's own, or zstandard's."""
    with suppress(ImportError):
        own = import_module("compression.zstd")
        return own.ZstdFile, (own.ZstdError,)
    with suppress(ImportError):
        other = import_module("zstandard")
        decompressor = other.ZstdDecompressor()
        return (
            lambda file: decompressor.stream_reader(file, read_across_frames=True, closefd=False),
            (other.ZstdError,),
        )
    return None, ()


_ZSTD, _ERRORS = _zstd()
_DAMAGED: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    *_ERRORS,
)


class Content(ABC):
    """A file to read lines from. Offsets count from behind the NULs that it begins with.

    Those are left by a writer that goes on where it was after the file was truncated. As a
    context it is closed at the end, unless it is `kept`.

    :raises OSError: It can't be opened.
    :raises UnreadableFile: It is no regular file.
    """

    #: Whether nobody writes to it any more, by its kind.
    final = False
    kept = False

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.fdopen(_opened(path), "rb", 0)
        #: Leading NULs, as far as is known.
        self.skipped = 0
        self._found = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self.close()

    def stat(self) -> os.stat_result:
        """Return what the system says of it now."""
        return os.fstat(self._file.fileno())

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on; b"" at the end.

        :raises UnreadableFile: It is not whole, or damaged.
        """
        while not self._found:
            data = self._raw(self._data(self.skipped), HEAD)
            if not data:
                return b""
            rest = data.lstrip(b"\0")
            self.skipped += len(data) - len(rest)
            self._found = bool(rest)
        return self._raw(self.skipped + offset, size)

    def left(self, offset: int) -> int:
        """Return the bytes behind `offset`; of a compressed file, those not decompressed so far."""
        return max(0, self.stat().st_size - self.skipped - offset)

    def close(self) -> None:
        self._file.close()

    def _data(self, offset: int) -> int:
        """Return where data stands from `offset` on: a hole is passed over at once."""
        return offset

    @abstractmethod
    def _raw(self, offset: int, size: int) -> bytes: ...


class PlainFile(Content):
    """A file as it is."""

    def _data(self, offset: int) -> int:
        with suppress(OSError):
            self.skipped = os.lseek(self.fileno(), offset, os.SEEK_DATA)
        return self.skipped

    def _raw(self, offset: int, size: int) -> bytes:
        return os.pread(self.fileno(), size, offset)


class CompressedFile(Content):
    """A file that is decompressed as it is read, from its beginning on."""

    final = True

    def __init__(self, path: str, expand: Callable[[BinaryIO], Any]) -> None:
        super().__init__(path)
        self._expand = expand
        self._stream: Any = None
        self._at = 0
        self._head = b""  # so that looking at it again takes no new beginning

    def left(self, offset: int) -> int:
        return self.stat().st_size - self._file.tell()

    def _raw(self, offset: int, size: int) -> bytes:
        if offset + size <= len(self._head):
            return self._head[offset : offset + size]
        try:
            if self._stream is None or offset < self._at:
                self._file.seek(0)
                self._stream, self._at = self._expand(self._file), 0
            while self._at < offset:
                skipped = self._stream.read(min(STEP, offset - self._at))
                if not skipped:
                    return b""
                self._at += len(skipped)
            data: bytes = self._stream.read(size)
        except _DAMAGED as problem:
            self._stream = None
            raise UnreadableFile(f"{self.path}: {problem}") from problem
        self._at += len(data)
        if offset == 0 and len(data) >= HEAD:
            self._head = data[:HEAD]
        return data


#: How files are decompressed, by the end of their names.
SUFFIXES: dict[str, Callable[[BinaryIO], Any] | None] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _ZSTD,
}


def suffix(path: str) -> str:
    """Return the end of a name that says how the file is compressed, or ""."""
    end = os.path.splitext(path)[1]
    return end if end in SUFFIXES else ""


def content(path: str) -> Content:
    """Open a file for reading.

    :raises OSError: It can't be opened.
    :raises UnreadableFile: It is no regular file, or there is no way to decompress it.
    """
    if not (end := suffix(path)):
        return PlainFile(path)
    if (expand := SUFFIXES[end]) is None:
        raise UnreadableFile(f"{path}: {end} is not read here; install sockservice[ship]")
    return CompressedFile(path, expand)


def _opened(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableFile(f"{path}: no regular file")
    return descriptor


def unwritten(descriptor: int) -> bool:
    """Return whether nobody has a file open for writing, as far as we may know.

    A lease is given only then (fcntl(2)), and to a file's owner. It is given back at once; when
    somebody opens the file in between, the system sends a signal: one that does nothing, not
    SIGIO, which ends the process.
    """
    try:
        fcntl(descriptor, F_SETSIG, SIGURG)
        fcntl(descriptor, F_SETLEASE, F_RDLCK)
        fcntl(descriptor, F_SETLEASE, F_UNLCK)
    except OSError:
        return False
    return True
