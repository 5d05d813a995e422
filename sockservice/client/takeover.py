"""Replace the protocol on the connection of a client."""

import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper

from sockservice.client.datagram import DatagramClient
from sockservice.client.line import REPLY_LIMIT, LineClient

#: Longest datagrams, in bytes; those of UNIX sockets end where the system's buffer does.
LONGEST = {socket.AF_INET: 65507, socket.AF_INET6: 65527}


def attach(client: LineClient | DatagramClient, protocol: Any) -> None:
    """Connect `protocol` to the transport of `client`, in place of it.

    To be called as soon as the client is connected, before anything is sent.
    """
    transport: Any = client.transport
    # The client may be registered as a producer.
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.unregisterProducer()
        transport.wrappedProtocol = protocol
    else:
        if getattr(transport, "producer", None) is not None:
            transport.unregisterProducer()
        transport.protocol = protocol
    protocol.makeConnection(transport)


def longest(client: LineClient | DatagramClient) -> int:
    """Return the length in bytes of the longest line or datagram that can be sent."""
    if isinstance(client, DatagramClient):
        return LONGEST.get(client.transport.socket.family, REPLY_LIMIT)
    return REPLY_LIMIT
