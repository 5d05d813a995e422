"""Ask a proxy for a connection: SOCKS5 and HTTP CONNECT, as bytes in and bytes out."""

import ipaddress
from abc import ABC, abstractmethod
from base64 import b64encode
from typing import NamedTuple, Self
from urllib.parse import unquote_to_bytes

from sockservice.client.hostport import hostAndPort, ipVersion
from sockservice.wire.escaping import printable

#: Longest answer to CONNECT in bytes.
ANSWER = 16 * 1024
#: Reply codes of SOCKS5 (RFC 1928, 6).
CODES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "it does not know CONNECT",
    8: "it does not know this type of address",
}


class Declined(Exception):
    """What a proxy answered if it made no connection, in words; none of ours are secret.

    `lasting`: it refused us, and will again.
    """

    def __init__(self, why: str, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Proxy(NamedTuple):
    """A proxy: `scheme` is socks5 or http; `user` and `password` are None where none are given."""

    scheme: str
    host: str
    port: int
    user: bytes | None = None
    password: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `socks5://[USER:PASSWORD@]HOST:PORT`, or the same with `http`.

        :raises ValueError: It is something else; the message holds no password.
        """
        scheme, separator, rest = text.partition("://")
        login, at, place = rest.rpartition("@")
        form = "a proxy is socks5:// or http://[USER:PASSWORD@]HOST:PORT"
        if not separator or scheme not in ("socks5", "http"):
            raise ValueError(form)
        try:
            host, port = hostAndPort(place.removesuffix("/"))
            if ipVersion(host) is None:
                _encoded(host)
        except ValueError:
            raise ValueError(form) from None
        if not at:
            return cls(scheme, host, port)
        user, colon, password = login.partition(":")
        made = cls(scheme, host, port, unquote_to_bytes(user), unquote_to_bytes(password))
        if not (colon and made.user and made.password and _fits(made.user, made.password)):
            raise ValueError(f"{form}; user and password have 1 to 255 bytes")
        if scheme == "http" and b":" in made.user:
            raise ValueError("the name of a user of an HTTP proxy holds no colon (RFC 7617)")
        return made

    def __repr__(self) -> str:
        return f"<proxy {self}>"

    def __str__(self) -> str:
        """What may be shown."""
        return f"{self.scheme}://{authority(self.host, self.port)}"

    def asking(self, host: str, port: int) -> "Asking":
        """Return the exchange that asks for a connection to `host` and `port`.

        :raises ValueError: `host` can't be said to a proxy.
        """
        return (SOCKS5 if self.scheme == "socks5" else HTTPConnect)(self, host, port)


class Asking(ABC):
    """An exchange with a proxy. What is to be sent is in what the methods return."""

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._host = host
        self._port = port
        self._name = _encoded(host)
        self._held = b""
        #: Whether there is a connection: what comes from here on is from its far end.
        self.done = False

    @abstractmethod
    def begin(self) -> bytes:
        """Return the first bytes to send."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the proxy; return what to send.

        :raises Declined: There is no connection, nor will be.
        """
        self._held += data
        return b"".join(iter(self._step, None))

    def rest(self) -> bytes:
        """Return the bytes behind the exchange, once it is done."""
        return self._held

    @abstractmethod
    def _step(self) -> bytes | None:
        """Take one message; return what to send, None if there is none yet."""

    def _bytes(self, count: int) -> bytes:
        taken, self._held = self._held[:count], self._held[count:]
        return taken


class SOCKS5(Asking):
    """CONNECT of SOCKS5 (RFC 1928), with user and password (RFC 1929) if there are any."""

    _expected = "method"

    def begin(self) -> bytes:
        return b"\5\1\0" if self._proxy.user is None else b"\5\2\0\2"

    def _step(self) -> bytes | None:
        if self._expected == "method":
            return self._method()
        if self._expected == "login":
            return self._login()
        return self._connected()

    def _method(self) -> bytes | None:
        if self._held and self._held[0] != 5:
            raise Declined("it does not speak SOCKS5")
        if len(self._held) < 2:
            return None
        method = self._bytes(2)[1]
        user, password = self._proxy.user, self._proxy.password
        if method == 0:
            return self._request()
        if method == 2 and user is not None and password is not None:
            self._expected = "login"
            return bytes([1, len(user)]) + user + bytes([len(password)]) + password
        if method == 255 and user is None:
            raise Declined("it refused us: it wants a user and a password", True)
        raise Declined("it refused us: it knows no way to log in that we know", True)

    def _login(self) -> bytes | None:
        if len(self._held) < 2:
            return None
        if self._bytes(2)[1]:
            raise Declined("it refused our user and password", True)
        return self._request()

    def _request(self) -> bytes:
        self._expected = "reply"
        version = ipVersion(self._host)
        if version is None:
            # The proxy looks the name up.
            address = bytes([3, len(self._name)]) + self._name
        else:
            packed = ipaddress.ip_address(self._host).packed
            address = bytes([1 if version == 4 else 4]) + packed
        return b"\5\1\0" + address + self._port.to_bytes(2, "big")

    def _connected(self) -> bytes | None:
        if self.done or len(self._held) < 2:
            return None
        version, code = self._held[:2]
        if version != 5:
            raise Declined("it does not speak SOCKS5")
        if code:
            # What follows may never come.
            said = CODES.get(code, f"reply code {code}")
            raise Declined(f"it could not connect to {authority(self._host, self._port)}: {said}")
        if len(self._held) < 5:
            return None
        sizes = {1: 4, 3: 1 + self._held[4], 4: 16}
        if self._held[3] not in sizes:
            raise Declined("it does not speak SOCKS5")
        size = 4 + sizes[self._held[3]] + 2
        if len(self._held) >= size:
            self._bytes(size)
            self.done = True
        return None


class HTTPConnect(Asking):
    """The method CONNECT of HTTP (RFC 9110, 9.3.6), in HTTP/1.1 (RFC 9112)."""

    def begin(self) -> bytes:
        name = self._name.decode("ascii")
        to = authority(name, self._port)
        lines = [f"CONNECT {to} HTTP/1.1", f"Host: {to}"]
        user, password = self._proxy.user, self._proxy.password
        if user is not None and password is not None:
            # RFC 7617
            login = b64encode(user + b":" + password).decode()
            lines.append(f"Proxy-Authorization: Basic {login}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _step(self) -> bytes | None:
        if self.done:
            return None
        begin = self._held[:5]
        if begin != b"HTTP/"[: len(begin)]:
            raise Declined("it does not speak HTTP")
        # A line may end in LF alone (RFC 9112, 2.2).
        ends = [
            place + len(end)
            for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n")
            if (place := self._held.find(end)) >= 0
        ]
        if not ends:
            if len(self._held) > ANSWER:
                raise Declined(f"its answer is longer than {ANSWER} bytes")
            return None
        answer = self._bytes(min(ends))
        line = answer.partition(b"\n")[0].rstrip(b"\r").decode("latin-1")
        code = line.partition(" ")[2]
        if len(code) < 3 or not code[:3].isdecimal() or code[3:4] not in ("", " "):
            raise Declined("it does not speak HTTP")
        if code[0] == "1":
            return b""  # an interim answer; another follows
        if code[0] != "2":
            to = authority(self._host, self._port)
            said = printable(code[:200].strip())
            raise Declined(f"it did not connect to {to}: {said}", code[:3] == "407")
        self.done = True
        return None


def authority(host: str, port: int) -> str:
    """Return `HOST:PORT`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _encoded(host: str) -> bytes:
    """Return a host's name as a proxy wants it.

    :raises ValueError: It is no name, or an address with a scope, which means something here alone.
    """
    if ipVersion(host) is not None:
        if "%" in host:
            raise ValueError(f"{host} has a scope, which a proxy does not know")
        return host.encode()
    try:
        name = host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError:
        name = b""
    if not 0 < len(name) < 256 or any(byte <= 32 or byte == 127 for byte in name):
        raise ValueError(f"invalid hostname: {host}")
    return name


def _fits(*words: bytes) -> bool:
    return all(0 < len(word) < 256 for word in words)
