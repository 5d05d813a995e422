"""Recognise by its first bytes a peer that speaks another protocol: a browser, or TLS."""

import re

#: The reply to an HTTP request, which any page in a browser can send to a port it can reach.
NO_WEB_SERVER = "this is no web server"
#: The reply to a TLS client where TLS is not spoken.
NO_TLS = "this port does not speak TLS"
#: The reply to a client that does not speak TLS where it is spoken.
ONLY_TLS = "this port speaks TLS"

# RFC 9112, 3: a method, a target, the version; a chunk may hold more.
_REQUEST = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.\d\r?(?:\n|\Z)")
# RFC 8446, 5.1 and 4: a record of the type handshake, which is a ClientHello.
_HELLO = (b"\x16", b"\x03", b"\x00\x01\x02\x03\x04", None, None, b"\x01")
#: Bytes that tell a ClientHello from anything else.
HELLO_LENGTH = len(_HELLO)


def isRequest(line: bytes) -> bool:
    """Return whether `line`, a connection's first, is the request line of HTTP/1.x."""
    return b" HTTP/1." in line and _REQUEST.match(line) is not None


def mayBeHello(data: bytes) -> bool:
    """Return whether a stream that begins with `data` may be that of a TLS client."""
    return all(
        allowed is None or byte in allowed for byte, allowed in zip(data, _HELLO, strict=False)
    )


def isText(data: bytes) -> bool:
    """Return whether a stream that begins with `data` is text, and so no TLS client's."""
    return data[:1].isascii() and (data[:1].decode().isprintable() or data[:1] in b"\r\n\t")
