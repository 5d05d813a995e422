"""Describe a connection: the address, and under TLS what was agreed and who the server is."""

import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper

from sockservice.wire.escaping import printable


def described(transport: Any) -> list[str]:
    """Return what is known of a client's connection, in lines, escaped."""
    lines = [f"connected to {reached(transport)}"]
    connection = transport.getHandle() if isinstance(transport, ProtocolWrapper) else None
    if connection is not None and hasattr(connection, "get_cipher_name"):
        lines += _secured(connection)
    return [printable(line) for line in lines]


def reached(transport: Any) -> str:
    """Return the address at the far end of a client's transport."""
    if hasattr(transport, "socket") and transport.socket.type == socket.SOCK_DGRAM:
        return _peer(transport.socket)
    peer = transport.getPeer()
    host = getattr(peer, "host", None)
    if host is not None:
        return f"[{host}]:{peer.port}" if ":" in host else f"{host}:{peer.port}"
    name = getattr(peer, "name", None)
    return str(name.decode(errors="backslashreplace") if isinstance(name, bytes) else name or peer)


def describedSocket(connected: socket.socket) -> list[str]:
    """Return what is known of a connected datagram socket, in lines, escaped."""
    return [printable(f"datagrams to {_peer(connected)}")]


def _peer(connected: socket.socket) -> str:
    peer = connected.getpeername()
    if connected.family == socket.AF_UNIX:
        return str(peer)
    host, port = socket.getnameinfo(peer, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _secured(connection: Any) -> list[str]:
    agreed = f"{connection.get_protocol_version_name()}, {connection.get_cipher_name()}"
    if name := connection.get_alpn_proto_negotiated():
        agreed += f", ALPN {name.decode(errors='backslashreplace')}"
    lines = [agreed]
    if (shown := connection.get_peer_certificate()) is not None:
        certificate = shown.to_cryptography()
        expiry = shown.get_notAfter().decode()
        lines += [
            f"the server's certificate: {certificate.subject.rfc4514_string() or 'no subject'}",
            f"issued by: {certificate.issuer.rfc4514_string()}",
            f"valid until: {expiry[:4]}-{expiry[4:6]}-{expiry[6:8]} "
            f"{expiry[8:10]}:{expiry[10:12]}:{expiry[12:14]} UTC",
        ]
    return lines
