"""Connect a datagram client to a target: resolve, bind, connect."""

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ConnectError

from sockservice.client.datagram import DatagramClient
from sockservice.client.described import describedSocket
from sockservice.client.endpoints import timedOut
from sockservice.client.hostport import hostAndPort, ipAddress, pathOf
from sockservice.client.ports import Ports
from sockservice.client.resolving import lookedUp, numeric
from sockservice.client.way import Way
from sockservice.net.bind.inet import RECEIVE_BUFFER
from sockservice.net.udp.port import DatagramPort


@inlineCallbacks
def connectDatagrams(
    reactor: Any,
    target: str,
    timeout: float,
    made: type[DatagramClient] = DatagramClient,
    source: str | None = None,
    ip: int | None = None,
    told: Callable[[list[str]], object] | None = None,
) -> Any:
    scheme, _, rest = target.partition(":")
    if scheme == "unix-datagram":
        Way(source, ip).none()
        return _datagramClient(reactor, made, socket.AF_UNIX, pathOf(rest), None, told)
    host, port = hostAndPort(rest)
    kind = socket.SOCK_DGRAM
    bound = None if source is None else numeric(ipAddress(source), 0, kind)[0]
    resolving = lookedUp(reactor, host, port, kind, Way(None, ip).version(host))
    found = yield resolving.addTimeout(timeout, reactor, timedOut)
    if bound is not None:
        found = [each for each in found if each[0] == bound[0]]
        if not found:
            raise ConnectError(errno.EAFNOSUPPORT, f"{host} has no address of the source's family")
    family, _, _, _, peer = found[0]
    return _datagramClient(reactor, made, family, peer, bound and bound[4], told)


def _datagramClient(
    reactor: Any,
    made: type[DatagramClient],
    family: int,
    peer: Any,
    source: Any,
    told: Callable[[list[str]], object] | None,
) -> DatagramClient:
    def connected() -> socket.socket:
        return _connected(family, peer, source)

    try:
        first = connected()
    except OSError as error:
        raise ConnectError(error.errno, error.strerror or str(error)) from error
    if told is not None:
        told(describedSocket(first))
    client = made(reactor, peer, Ports(reactor, connected).open)
    DatagramPort(reactor, first, client).startListening()
    return client


def _connected(family: int, peer: Any, source: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_UNIX:
            # A name, which the system chooses, is needed to get a reply; unix(7), autobind.
            made.bind("")
        elif source is not None:
            made.bind(source)
        # Connected, so that only the peer is heard, and a refusal (ICMP port unreachable) is
        # reported.
        made.connect(peer)
    except OSError:
        made.close()
        raise
    return made
