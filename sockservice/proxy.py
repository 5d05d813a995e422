"""PROXY headers, versions 1 and 2: learn from a proxy who the real peer is.

Source: "The PROXY protocol", HAProxy Technologies, 2020/03/05 (proxy-protocol.txt).
Whatever way the header is cut into segments, it is the same header.
"""

import re
import socket
import struct
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from sockservice.addresses import named
from sockservice.transports import plainSocket
from sockservice.turning import TurnedAway

_V1_LONGEST = 107  # section 2.1, its line ending included
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+)"
    rb" (\d{1,5}) (\d{1,5}))\r\n"
)
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2 = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21

#: Longest header in bytes, all that a proxy adds (TLVs) included: an address takes 52, a
#: certificate's name some hundred.
HEADER_LIMIT = 4096

log = Logger()


class Header(NamedTuple):
    """A whole header: how long it is, and the peer it names, if any."""

    length: int
    peer: IAddress | None


def parsed(data: bytes) -> Header | None:
    """Read the header that `data` begins with; None when more of it is needed.

    :raises ValueError: `data` begins with no PROXY header.
    """
    if data[:12] == _V2_SIGNATURE[: len(data)]:
        return _parsedV2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        end = data.find(b"\n", 0, _V1_LONGEST)
        if end < 0 and len(data) < _V1_LONGEST:
            return None
        return _parsedV1(data[: end + 1])
    raise ValueError("no PROXY header")


def _parsedV1(line: bytes) -> Header:
    found = _V1.fullmatch(line)
    if found is None:
        raise ValueError("a malformed PROXY header, version 1")
    family, host, _, port, _ = found.groups()
    if family is None:
        return Header(len(line), None)
    return Header(len(line), _address(family == b"6", host.decode(), int(port)))


def _parsedV2(data: bytes) -> Header | None:
    if len(data) < _V2.size:
        return None
    _, command, family, size = _V2.unpack_from(data)
    length = _V2.size + size
    if command not in (_LOCAL, _PROXY):
        raise ValueError("a PROXY header of an unknown version or command")
    if length > HEADER_LIMIT:
        raise ValueError(f"a PROXY header longer than {HEADER_LIMIT} bytes")
    if len(data) < length:
        return None
    wide = family == _TCP6
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return Header(length, None)
    if size < (36 if wide else 12):
        raise ValueError("a PROXY header too short for its addresses")
    host, _, port, _ = struct.unpack_from("!16s16sHH" if wide else "!4s4sHH", data, _V2.size)
    text = socket.inet_ntop(socket.AF_INET6 if wide else socket.AF_INET, host)
    return Header(length, _address(wide, text, port))


def _address(wide: bool, host: str, port: int) -> IAddress:
    try:
        socket.inet_pton(socket.AF_INET6 if wide else socket.AF_INET, host)
    except OSError:
        raise ValueError("a PROXY header with a malformed address") from None
    if port > 65535:
        raise ValueError("a PROXY header with a malformed port")
    return IPv6Address("TCP", host, port) if wide else IPv4Address("TCP", host, port)


class ProxyFactory(Factory):
    """Expect a PROXY header on each connection, then serve it as `factory` would.

    `factory` sees the peer that the header names. It is for listeners that only
    a proxy can reach: whoever connects can name any peer. Until the header is there a
    connection counts as one, and it has as long for it as for a line.
    """

    noisy = False

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        #: The LineFactory, which TLS may be wrapped around.
        self.lines = getattr(factory, "wrappedFactory", factory)

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Give what waits for the header, or turns the connection away."""
        return self.lines.turned(None, named(addr)) or ProxyHeader(self, addr)


class ProxyHeader(Protocol):
    """The first bytes of a connection, until its PROXY header is whole."""

    transport: Any

    def __init__(self, factory: ProxyFactory, proxy: IAddress | None) -> None:
        self._factory = factory
        self._proxy = proxy
        self._lines = factory.lines
        self._data = b""
        self._since = self._lines.reactor.seconds()
        self._waits = True

    def connectionMade(self) -> None:
        self._lines.expected(self)

    def inspect(self, now: float, idle: int, unfinished: int) -> None:
        """Refuse to wait any longer; called as a LineServer's."""
        if unfinished and now - self._since >= unfinished:
            self._refuse(f"no PROXY header for {unfinished} seconds")

    def finish(self) -> None:
        """Take what the system has received, a header and lines; without them, close."""
        plain = plainSocket(self.transport)
        if plain is not None:
            with suppress(OSError):
                self.dataReceived(plain.recv(65536))
        if self._waits:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            header = parsed(self._data)
        except ValueError as problem:
            self._refuse(str(problem))
            return
        if header is None:
            return
        # It counts no more, or there might be no place for what it is from now on.
        self._lines.admission.left(None)
        served = self._factory.factory.buildProtocol(header.peer or self._proxy)
        if served is None:
            self.transport.loseConnection()
        else:
            self._hand(served)
            if len(self._data) > header.length:
                served.dataReceived(self._data[header.length :])
        self._end()

    def _hand(self, protocol: Any) -> None:
        """Make the connection `protocol`'s own, with nothing in between."""
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def _refuse(self, reason: str) -> None:
        self._lines.admission.left(None)
        self._lines.counters.turnedAway += 1
        if self._lines.journal.admits("PROXY headers refused"):
            log.info(
                "{peer} refused: {reason}", peer=named(self.transport.getPeer()), reason=reason
            )
        # Told as whoever is turned away: so that it is heard, and nothing is waited for long.
        self._hand(TurnedAway(self._lines.turning, reason))
        self._end()

    def _end(self) -> None:
        """Wait for the header no more."""
        self._waits = False
        self._lines.unexpected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._waits:
            return
        self._lines.admission.left(None)
        self._end()
        if self._data and self._lines.journal.admits("gone in a PROXY header"):
            peer = named(self.transport.getPeer())
            log.info("{peer} gone in the middle of its PROXY header", peer=peer)
