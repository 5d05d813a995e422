"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), which Python's socket lacks.

A call for each datagram, with its address converted to text and back, costs as much as the
rest of an echo. Here the address of a peer is converted once and remembered.
"""

import ctypes
import errno
import mmap
import os
import socket
from typing import Any

from sockservice.net.udp.pktinfo import Source, source

#: Datagrams in one call. A buffer for each is always there.
MOST = 16
#: Bytes of buffer for each: longer than any datagram (65,527 on IPv6).
LONGEST = 65536
#: Peers whose addresses are remembered; when there are more, all are forgotten.
REMEMBERED = 1000

_NAME = 32  # bytes for an address, more than IPv4's and IPv6's
_CONTROL = 128  # bytes for control messages, more than those requested


class _Vector(ctypes.Structure):
    # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("nameLength", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vectorCount", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controlLength", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    # struct mmsghdr
    _anonymous_ = ("header",)
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_LENGTH = _Message.length.offset // 4
_STRIDE = ctypes.sizeof(_Message) // 4


class _Messages:
    """Buffers for MOST messages, and the structures that describe them."""

    def __init__(self, nameLength: int, controlLength: int) -> None:
        self.data = mmap.mmap(-1, MOST * LONGEST)
        self.names = mmap.mmap(-1, MOST * _NAME)
        self.controls = mmap.mmap(-1, MOST * _CONTROL)
        self.vectors = (_Vector * MOST)()
        self.headers = (_Message * MOST)()
        data, names, controls = (
            ctypes.addressof(ctypes.c_char.from_buffer(each))
            for each in (self.data, self.names, self.controls)
        )
        for number, (vector, header) in enumerate(zip(self.vectors, self.headers, strict=True)):
            vector.base = data + number * LONGEST
            vector.length = LONGEST
            header.name = names + number * _NAME
            header.nameLength = nameLength
            header.vectors = ctypes.addressof(vector)
            header.vectorCount = 1
            header.control = controls + number * _CONTROL
            header.controlLength = controlLength
        #: The headers as they are now; receiving changes them.
        self.fresh = bytes(self.headers)
        # Views of these structures, three times as fast as their attributes.
        #: Bytes received, at LENGTH and then at every STRIDE.
        self.lengths = memoryview(self.headers).cast("B").cast("I")
        #: Bytes to send, at 1 and then at every other.
        self.sizes = memoryview(self.vectors).cast("B").cast("L")


class Batches:
    """Receives and sends datagrams on `bound`, a non-blocking UDP socket.

    `origins`: whether control messages tell to which address a datagram was sent.
    """

    def __init__(self, bound: socket.socket, origins: bool) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg: Any = library.recvmmsg
        self._sendmmsg: Any = library.sendmmsg
        self._socket = bound
        self._origins = origins
        self._nameLength = 28 if bound.family == socket.AF_INET6 else 16
        self._in = _Messages(self._nameLength, _CONTROL if origins else 0)
        self._out = _Messages(self._nameLength, 0)
        self._known: dict[bytes, Source] = {}

    def receive(self) -> list[tuple[bytes, Source]]:
        """Return datagrams received, at most MOST, with their sources.

        :raises OSError: There are none, or the system reports another error.
        """
        into = self._in
        ctypes.memmove(into.headers, into.fresh, len(into.fresh))
        count = self._recvmmsg(self._socket.fileno(), into.headers, MOST, 0, None)
        if count < 0:
            raise _error()
        data, names, known, length = into.data, into.names, self._known, self._nameLength
        received = []
        at = name = 0
        for size in into.lengths[_LENGTH : count * _STRIDE : _STRIDE]:
            key = names[name : name + length]
            if self._origins:
                number = name // _NAME
                control = number * _CONTROL
                key += into.controls[control : control + into.headers[number].controlLength]
            found = known.get(key)
            if found is None:
                found = self._remember(key)
            received.append((data[at : at + size], found))
            at += LONGEST
            name += _NAME
        return received

    def send(self, replies: list[tuple[bytes, Source]]) -> int:
        """Send replies to the sources of datagrams; return how many were sent, at most MOST.

        :raises OSError: The first of them could not be sent.
        """
        out = self._out
        data, names, sizes, length = out.data, out.names, out.sizes, self._nameLength
        at = name = 0
        for number, (reply, to) in enumerate(replies[:MOST]):
            size = len(reply)
            if size > LONGEST:
                break
            data[at : at + size] = reply
            sizes[2 * number + 1] = size
            names[name : name + length] = to.raw
            if self._origins:
                control = number * _CONTROL
                out.controls[control : control + len(to.control)] = to.control
                out.headers[number].controlLength = len(to.control)
            at += LONGEST
            name += _NAME
        if not name:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        sent: int = self._sendmmsg(self._socket.fileno(), out.headers, name // _NAME, 0)
        if sent < 0:
            raise _error()
        return sent

    def _remember(self, key: bytes) -> Source:
        if len(self._known) == REMEMBERED:
            self._known.clear()
        self._known[key] = found = source(key[: self._nameLength], key[self._nameLength :])
        return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
