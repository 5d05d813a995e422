"""A protocol of one's own on the connection of a client."""

from typing import Any

from twisted.protocols.policies import ProtocolWrapper

from sockservice.client import DatagramClient, LineClient


def attach(client: LineClient | DatagramClient, protocol: Any) -> None:
    """Have `protocol` get what `client` would have got, from its connection on.

    To be called as soon as the client is there, before anything was asked.
    """
    transport = client.transport
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)
