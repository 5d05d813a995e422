"""Parse PROXY headers, versions 1 and 2, with which a proxy names the real peer.

Source: "The PROXY protocol", HAProxy Technologies, 2020/03/05 (proxy-protocol.txt).
A header may arrive in any number of segments.
"""

import re
import socket
import struct
from typing import NamedTuple

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


class Header(NamedTuple):
    """A complete header: its length, and the host and port of the peer that it names, if any."""

    length: int
    peer: tuple[str, int] | None


def parsed(data: bytes) -> Header | None:
    """Return the header at the start of `data`, or None if it is incomplete.

    :raises ValueError: `data` does not start with a PROXY header.
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


def _address(wide: bool, host: str, port: int) -> tuple[str, int]:
    try:
        socket.inet_pton(socket.AF_INET6 if wide else socket.AF_INET, host)
    except OSError:
        raise ValueError("a PROXY header with a malformed address") from None
    if port > 65535:
        raise ValueError("a PROXY header with a malformed port")
    return host, port
