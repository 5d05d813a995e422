"""Connect a datagram client to a target: resolve, bind, connect."""

import errno
import socket
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import (
    ConnectError,
    DNSLookupError,
)
from twisted.internet.threads import deferToThreadPool

from sockservice.client.datagram import DatagramClient
from sockservice.client.endpoints import timedOut
from sockservice.client.hostport import hostAndPort, ipAddress, pathOf
from sockservice.net.bind.inet import RECEIVE_BUFFER
from sockservice.net.udp.port import DatagramPort


@inlineCallbacks
def connectDatagrams(
    reactor: Any,
    target: str,
    timeout: float,
    made: type[DatagramClient] = DatagramClient,
    source: str | None = None,
    verify: bool = True,
    **tls: str | None,
) -> Any:
    scheme, _, rest = target.partition(":")
    if not verify or any(tls.values()):
        raise ValueError("what is said of TLS applies to tls:HOST:PORT alone")
    if scheme == "unix-datagram":
        if source is not None:
            raise ValueError("a source address applies to tcp:, tls: and udp:HOST:PORT alone")
        return _datagramClient(reactor, made, socket.AF_UNIX, pathOf(rest), None)
    host, port = hostAndPort(rest)
    bound = None if source is None else _resolved(ipAddress(source), 0)[0]
    resolving = deferToThreadPool(reactor, reactor.getThreadPool(), _resolved, host, port)
    resolving.addTimeout(timeout, reactor, timedOut)
    try:
        found = yield resolving
    except socket.gaierror as error:
        raise DNSLookupError(f"{host}: {error.strerror}") from error
    except UnicodeError as error:
        raise ValueError(f"invalid hostname: {host}") from error
    if bound is not None:
        found = [each for each in found if each[0] == bound[0]]
        if not found:
            raise ConnectError(errno.EAFNOSUPPORT, f"{host} has no address of the source's family")
    family, _, _, _, peer = found[0]
    return _datagramClient(reactor, made, family, peer, bound and bound[4])


def _resolved(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)


def _datagramClient(
    reactor: Any, made: type[DatagramClient], family: int, peer: Any, source: Any
) -> DatagramClient:
    connected = socket.socket(family, socket.SOCK_DGRAM)
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    try:
        if family == socket.AF_UNIX:
            # A name, which the system chooses, is needed to get a reply; unix(7), autobind.
            connected.bind("")
        elif source is not None:
            connected.bind(source)
        # Connected, so that a refusal (ICMP port unreachable) is reported.
        connected.connect(peer)
    except OSError as error:
        connected.close()
        raise ConnectError(error.errno, error.strerror or str(error)) from error
    client = made(reactor, peer)
    DatagramPort(reactor, connected, client).startListening()
    return client
