"""A protocol of one's own on the connection of a client."""

import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper

from sockservice.client.datagram import DatagramClient
from sockservice.client.line import REPLY_LIMIT, LineClient

#: Longest datagrams, in bytes; those of UNIX sockets end where the system's buffer does.
LONGEST = {socket.AF_INET: 65507, socket.AF_INET6: 65527}


def attach(client: LineClient | DatagramClient, protocol: Any) -> None:
    """Have `protocol` get what `client` would have got, from its connection on.

    To be called as soon as the client is there, before anything was asked.
    """
    transport = client.transport
    # The client may have asked to be told how full the transport is.
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.unregisterProducer()
        transport.wrappedProtocol = protocol
    else:
        if getattr(transport, "producer", None) is not None:
            transport.unregisterProducer()
        transport.protocol = protocol
    protocol.makeConnection(transport)


def longest(client: LineClient | DatagramClient) -> int:
    """Give the length of the longest line or datagram that can be asked."""
    if isinstance(client, DatagramClient):
        return LONGEST.get(client.transport.socket.family, REPLY_LIMIT)
    return REPLY_LIMIT
