"""Connections through proxies: each split of their bytes, what they refuse, and real ones."""

import socket
import struct
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol

from sockservice.client.explain import explained
from sockservice.client.proxied import Proxied, ProxyError, lasting
from sockservice.client.proxy import ANSWER, Declined, Proxy
from sockservice.client.targets import connect
from tests.certificates import Identity
from tests.client.test_sending import FarEnd
from tests.client.test_targets import Secure, secure
from tests.conftest import PATIENCE, Children, HandReactor, Service
from tests.doubles import Outcome

__all__ = ["secure"]

# Twisted and pyOpenSSL say so of each other.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

REACHED = b"\5\0\0\1\x7f\0\0\1\0\x50"
FOUND = b"HTTP/1.1 200 Connection established\r\nVia: us\r\nContent-Length: 5\r\n\r\n"
LOGIN = b64encode(b"me:se:cr@et").decode()


def asked(proxy: str, replies: bytes, cuts: tuple[int, ...], to: str = "far.example") -> Any:
    """Give what was sent, and what came behind, for replies that arrive in these pieces."""
    asking = Proxy.parse(proxy).asking(to, 80)
    sent = asking.begin()
    for start, end in zip((0, *cuts), (*cuts, len(replies)), strict=True):
        assert not (asking.done and start < len(replies) - len(b"hello"))
        sent += asking.receive(replies[start:end])
    assert asking.done
    return sent, asking.rest()


@pytest.mark.parametrize(
    ("proxy", "replies", "sent"),
    [
        ("socks5://p:1", b"\5\0" + REACHED, b"\5\1\0\5\1\0\3\x0bfar.example\0\x50"),
        (
            "socks5://me:se:cr%40et@p:1",
            b"\5\2\1\0" + REACHED,
            b"\5\2\0\2\1\2me\x08se:cr@et\5\1\0\3\x0bfar.example\0\x50",
        ),
        (
            "socks5://me:x@p:1",
            b"\5\0\5\0\0\3\4name\0\0",
            b"\5\2\0\2\5\1\0\3\x0bfar.example\0\x50",
        ),
        ("socks5://p:1", b"\5\0\5\0\0\4" + bytes(18), b"\5\1\0\5\1\0\3\x0bfar.example\0\x50"),
        (
            "http://p:1",
            b"HTTP/1.1 100 Continue\r\n\r\n" + FOUND,
            b"CONNECT far.example:80 HTTP/1.1\r\nHost: far.example:80\r\n\r\n",
        ),
        (
            "http://me:se:cr%40et@p:1",
            b"HTTP/1.0 200 OK\n\n",
            b"CONNECT far.example:80 HTTP/1.1\r\nHost: far.example:80\r\n"
            b"Proxy-Authorization: Basic " + LOGIN.encode() + b"\r\n\r\n",
        ),
    ],
)
def test_replies_are_understood_however_they_are_cut(
    proxy: str, replies: bytes, sent: bytes
) -> None:
    whole = replies + b"hello"
    for first in range(len(whole) + 1):
        assert asked(proxy, whole, (first,)) == (sent, b"hello")
    bytewise = tuple(range(1, len(whole)))
    assert asked(proxy, whole, bytewise) == (sent, b"hello")


@pytest.mark.parametrize(
    ("proxy", "to", "request_"),
    [
        ("socks5", "192.0.2.1", b"\5\1\0\1\xc0\0\2\1\0\x50"),
        ("socks5", "2001:db8::1", b"\5\1\0\4 \1\r\xb8" + bytes(11) + b"\1\0\x50"),
        ("socks5", "bücher.example", b"\5\1\0\3\x15xn--bcher-kva.example\0\x50"),
        ("http", "2001:db8::1", b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\n"),
        ("http", "bücher.example", b"CONNECT xn--bcher-kva.example:80 HTTP/1.1\r\n"),
    ],
)
def test_addresses_and_names_are_written_as_a_proxy_wants_them(
    proxy: str, to: str, request_: bytes
) -> None:
    asking = Proxy.parse(f"{proxy}://p:1").asking(to, 80)
    sent = asking.begin()
    assert (sent + asking.receive(b"\5\0") if proxy == "socks5" else sent).find(request_) >= 0


@pytest.mark.parametrize(
    ("proxy", "replies", "why"),
    [
        ("socks5", b"HTTP/1.1 400 Bad", "it does not speak SOCKS5"),
        ("socks5", b"\5\xff", "it refused us: it wants a user and a password"),
        ("socks5", b"\5\1", "it refused us: it knows no way to log in that we know"),
        ("socks5 login", b"\5\2\1\1", "it refused our user and password"),
        ("socks5", b"\5\0\5\5", "it could not connect to far.example:80: connection refused"),
        ("socks5", b"\5\0\5\x63", "it could not connect to far.example:80: reply code 99"),
        ("socks5", b"\5\0\5\0\0\7\0", "it does not speak SOCKS5"),
        ("http", b"SSH-2.0-x\r\n", "it does not speak HTTP"),
        ("http", b"HTTP/1.1 abc\r\n\r\n", "it does not speak HTTP"),
        (
            "http",
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "it did not connect to far.example:80: 407 Proxy Authentication Required",
        ),
        (
            "http",
            b"HTTP/1.1 502 \x1b[31m\r\n\r\nno",
            "it did not connect to far.example:80: 502 \\x1b[31m",
        ),
        ("http", b"HTTP/" + b"x" * ANSWER, f"its answer is longer than {ANSWER} bytes"),
    ],
)
def test_a_refusal_is_said_in_words(proxy: str, replies: bytes, why: str) -> None:
    login = "me:secret@" if "login" in proxy else ""
    asking = Proxy.parse(f"{proxy.split()[0]}://{login}p:1").asking("far.example", 80)
    asking.begin()
    with pytest.raises(Declined) as refused:
        for byte in struct.unpack(f"{len(replies)}c", replies):
            asking.receive(byte)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    "text",
    [
        *("p:1", "socks4://p:1", "socks5://p", "http://p:0", "http://:1", "http://a b:1"),
        *("socks5://secret@p:1", "socks5://:secret@p:1", f"socks5://me:{'secret' * 50}@p:1"),
        *("http://m%3ae:secret@p:1", "secret://me:secret@p:1", "http://me:secret@p:x"),
    ],
)
def test_what_is_no_proxy_is_said_and_no_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"proxy") as wrong:
        Proxy.parse(text)
    assert "secret" not in str(wrong.value)


def test_a_proxy_is_shown_without_its_password() -> None:
    proxy = Proxy.parse("http://me:secret@[::1]:8080/")
    assert (str(proxy), repr(proxy)) == ("http://[::1]:8080", "<proxy http://[::1]:8080>")
    assert (proxy.user, proxy.password) == (b"me", b"secret")


# The endpoint, in memory


class Leading:
    """Leads to a proxy in memory."""

    def connect(self, factory: Any) -> Any:
        protocol = factory.buildProtocol(None)
        self.wire = FarEnd(protocol)
        protocol.makeConnection(self.wire)
        return succeed(protocol)


class Kept(Protocol):
    """Keeps what it received."""

    data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


def proxied(leading: Leading) -> Outcome:
    endpoint = Proxied(leading, Proxy.parse("socks5://me:secret@p:1"), "far.example", 80)
    return Outcome(endpoint.connect(Factory.forProtocol(Kept)))


def test_what_comes_behind_the_proxys_reply_is_for_the_protocol() -> None:
    leading = Leading()
    outcome = proxied(leading)
    wire = leading.wire
    wire._protocol.dataReceived(b"\5\0")
    assert not outcome.came
    wire._protocol.dataReceived(REACHED + b"hel")
    made = outcome.value
    assert made.data == b"hel"
    # From here on it is the transport's protocol.
    assert made.transport.protocol is made


def test_a_proxy_that_closes_is_said() -> None:
    leading = Leading()
    outcome = proxied(leading)
    leading.wire._protocol.dataReceived(b"\5\2")
    leading.wire.lose(ConnectionDone())
    assert isinstance(outcome.error, ProxyError)
    assert explained(outcome.error) == (
        "the proxy socks5://p:1: it closed the connection before it had made another"
    )
    assert "secret" not in repr(outcome.error)
    assert not lasting(outcome.error)


def test_a_wrong_password_is_not_tried_again() -> None:
    leading = Leading()
    outcome = proxied(leading)
    leading.wire._protocol.dataReceived(b"\5\2\1\1")
    assert outcome.error is not None
    assert explained(outcome.error) == "the proxy socks5://p:1: it refused our user and password"
    assert lasting(outcome.error)
    asking = Proxy.parse("http://p:1").asking("far.example", 80)
    with pytest.raises(Declined) as declined:
        asking.receive(b"HTTP/1.1 407 Who?\r\n\r\n")
    assert declined.value.lasting


# A real one


class Relay(Thread):
    """A proxy on loopback that finds everything at `target`, one connection after the other."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[bytes] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                near.settimeout(PATIENCE)
                with near, socket.create_connection(self._target, PATIENCE) as far:
                    self._agree(near)
                    back = Thread(target=self._copy, args=(far, near), daemon=True)
                    back.start()
                    self._copy(near, far)
                    back.join()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()

    def _agree(self, near: socket.socket) -> None:
        begin = near.recv(1000)
        self.asked.append(begin)
        if begin.startswith(b"CONNECT "):
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            return
        near.sendall(b"\5\2")
        self.asked.append(near.recv(1000))
        near.sendall(b"\1\0")
        self.asked.append(near.recv(1000))
        near.sendall(REACHED)

    def _copy(self, begin: socket.socket, end: socket.socket) -> None:
        with suppress(OSError):
            while data := begin.recv(65536):
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)


@pytest.fixture
def relays() -> Iterator[list[Relay]]:
    made: list[Relay] = []
    yield made
    for each in made:
        each.close()


def test_lines_go_through_a_proxy_that_looks_up_the_name(
    children: Children, service: Service, relays: list[Relay]
) -> None:
    relay = Relay(service.address)
    relays.append(relay)
    relay.start()
    done = children.run(
        *("sockservice", "send", "-v", "tcp:far.invalid:80", "hello"),
        env={"SOCKSERVICE_PROXY": f"socks5://me:secret@{relay.address}"},
    )
    assert (done.returncode, done.stdout) == (0, b"ok\n")
    said = f"* connected to {relay.address}\n* which is the proxy socks5://{relay.address}\n"
    assert done.stderr == said.encode()
    assert relay.asked[1:] == [b"\1\2me\6secret", b"\5\1\0\3\x0bfar.invalid\0\x50"]


def test_tls_goes_through_a_proxy_to_the_server_itself(
    reactor: HandReactor, secure: Secure, server: Identity, authority: Identity, relays: list[Relay]
) -> None:
    relay = Relay(("127.0.0.1", secure(server)))
    relays.append(relay)
    relay.start()
    client = reactor.result(
        connect(
            reactor,
            "tls:localhost:443",
            proxy=f"http://{relay.address}",
            cafile=str(authority.certKey),
        )
    )
    assert reactor.result(client.ask(b"hello")) == b"ok"
    assert relay.asked == [b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"]
    reactor.result(client.close())


@pytest.mark.parametrize(
    ("target", "how", "why"),
    [
        ("unix:x", {"proxy": "http://p:1"}, "a proxy is for tcp: and tls:HOST:PORT alone"),
        ("udp:127.0.0.1:5", {"proxy": "http://p:1"}, "a proxy is for tcp: and tls:HOST:PORT alone"),
        ("127.0.0.1:5", {"proxy": "p:1"}, "a proxy is socks5:// or http://"),
        ("[fe80::1%lo]:5", {"proxy": "http://p:1"}, "has a scope, which a proxy does not know"),
        ("a:5", {"proxy": "http://127.0.0.1:1", "ip": 6}, "127.0.0.1 is not of the family of IPv6"),
    ],
)
def test_what_can_not_be_proxied_is_said(
    reactor: HandReactor, target: str, how: dict[str, Any], why: str
) -> None:
    outcome = Outcome(connect(reactor, target, **how))
    assert isinstance(outcome.error, ValueError)
    assert why in str(outcome.error)


def test_a_proxy_that_is_not_there_is_said(reactor: HandReactor) -> None:
    outcome = Outcome(connect(reactor, "far.invalid:80", proxy="http://me:secret@127.0.0.1:1"))
    reactor.until(lambda: outcome.came, passing=0.1)
    assert outcome.error is not None
    assert explained(outcome.error) == "the proxy http://127.0.0.1:1: Connection refused"
