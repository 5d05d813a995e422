"""Targets: what they reach, over TLS as well, and what is said where they reach nothing."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectError, TCPTimedOutError
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.tcp import Client

from sockservice import DatagramClient, LineClient, Unanswered, connect
from sockservice.client.explain import explained
from sockservice.net.tls.client import HandshakeError, refusal
from tests.certificates import Identity
from tests.conftest import PATIENCE, HandReactor, Reactor, Running, Serving, failure
from tests.doubles import Outcome

# Twisted and pyOpenSSL say so of each other.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

Secure = Callable[..., int]


def securing(services: Running | Serving) -> Secure:
    def started(identity: Identity, more: str = "") -> int:
        services.start("--listen", f"ack@ssl:0:interface=127.0.0.1:{identity.said}{more}")
        [(_, _, number)] = services.addresses
        return number

    return started


@pytest.fixture
def secure(running: Running) -> Secure:
    """Serve lines over TLS; give the port's number."""
    return securing(running)


@pytest.fixture
def secured(serving: Serving) -> Secure:
    """Serve lines over TLS in the installed reactor; give the port's number."""
    return securing(serving)


def unreached(reactor: HandReactor, target: str, **how: Any) -> str:
    """See that it can't be connected to; give what is said of it, on one line."""
    outcome = Outcome(connect(reactor, target, **how))
    # An endpoint waits a little for other addresses of the host.
    reactor.until(lambda: outcome.came, passing=0.1)
    closed(reactor)
    assert isinstance(outcome.error, ConnectError)
    said = explained(outcome.error)
    assert "\n" not in said
    return said


def closed(reactor: HandReactor) -> None:
    """See what was given up closed, which takes turns."""
    reactor.until(lambda: not any(isinstance(each, Client) for each in reactor.getReaders()))
    reactor.advance(0)


# What they are


@pytest.mark.parametrize(
    "target", ["127.0.0.1:{}", "localhost:{}", "tcp:127.0.0.1:{}", "tcp:host=127.0.0.1:port={}"]
)
async def test_a_host_and_a_port_mean_tcp(real: Reactor, serving: Serving, target: str) -> None:
    serving.start("--listen", "ack@tcp:0:interface=127.0.0.1")
    [(_, _, number)] = serving.addresses
    client = await connect(real, target.format(number))
    assert isinstance(client, LineClient)
    assert await client.ask(b"a") == b"ok"
    await client.close()


def test_asyncio_without_a_reactor_is_told() -> None:
    async def main() -> None:
        await connect(SelectReactor(), "127.0.0.1:5")

    with pytest.raises(RuntimeError, match=r"run the program with twisted.internet.task.react"):
        asyncio.run(main())


async def test_a_path_may_hold_what_means_something_elsewhere(
    real: Reactor, serving: Serving, tmp_path: Path
) -> None:
    serving.start("--listen", f"ack@unix:{tmp_path}/a\\=b")
    client = await connect(real, f"unix:{tmp_path}/a=b")
    assert await client.ask(b"a") == b"ok"
    await client.close()


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_the_source_is_an_address_of_ours(
    real: Reactor, serving: Serving, scheme: str
) -> None:
    what = {"tcp": "ack", "udp": "echo"}[scheme]
    serving.start("--listen", f"{what}@{scheme}:0:interface=127.0.0.1")
    [(_, _, number)] = serving.addresses
    client = await connect(real, f"{scheme}:127.0.0.1:{number}", source="127.0.0.2")
    assert isinstance(client, LineClient if scheme == "tcp" else DatagramClient)
    assert await client.ask(b"a") in (b"a", b"ok")
    host: Any = client.transport.getHost()
    assert (host[0] if isinstance(host, tuple) else host.host) == "127.0.0.2"
    await client.close()


@pytest.mark.parametrize(
    ("target", "how", "why"),
    [
        ("udp:127.0.0.1:5", {"source": "::1"}, "no address of the source's family"),
        ("udp:127.0.0.1:5", {"source": "192.0.2.1"}, "Cannot assign requested address"),
        ("unix:/nowhere/at/all", {}, "No such file or directory"),
        ("unix-seqpacket:/nowhere/at/all", {}, "No such file or directory"),
    ],
)
def test_what_cannot_be_reached_is_told(
    reactor: HandReactor, target: str, how: dict[str, str], why: str
) -> None:
    assert why in unreached(reactor, target, **how)


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [("unix", socket.SOCK_STREAM), ("unix-seqpacket", socket.SOCK_SEQPACKET)],
)
def test_a_unix_socket_that_many_wait_for_is_waited_for(
    reactor: HandReactor,
    opened: ExitStack,
    tmp_path: Path,
    scheme: str,
    kind: socket.SocketKind,
) -> None:
    listening = opened.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
    listening.bind(f"{tmp_path}/s")
    listening.listen(0)
    first = opened.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
    first.connect(f"{tmp_path}/s")
    target = f"{scheme}:{tmp_path}/s"
    assert unreached(reactor, target, timeout=1) == "not connected within 1 second"
    outcome = Outcome(connect(reactor, target))
    for _ in range(5):
        reactor.advance(0.1)
    assert not outcome.came
    listening.accept()[0].close()
    reactor.until(lambda: outcome.came, passing=0.1)
    reactor.result(outcome.value.abort())


@pytest.mark.parametrize(
    ("target", "how", "why"),
    [
        ("127.0.0.1:5", {"source": "x"}, "'x' is no IP address"),
        ("udp:127.0.0.1:5", {"source": "x"}, "'x' is no IP address"),
        ("unix:x", {"source": "::1"}, "a source address applies to"),
        ("unix-datagram:x", {"source": "::1"}, "a source address applies to"),
        ("tcp:host=x:port=5", {"source": "::1"}, "a source address applies to"),
        ("127.0.0.1:5", {"cafile": "x"}, "what is said of TLS"),
        ("udp:127.0.0.1:5", {"verify": False}, "what is said of TLS"),
        ("unix-datagram:x", {"cert": "x"}, "what is said of TLS"),
        ("tls:127.0.0.1:5", {"cafile": "/nowhere"}, "/nowhere: No such file or directory"),
        (
            "tls:127.0.0.1:5",
            {"cafile": "/dev/null"},
            "/dev/null: it is a device; a regular file is wanted",
        ),
        ("tls:127.0.0.1:5", {"tlsMin": "1.1"}, "the lowest version of TLS is one of 1.2, 1.3"),
        ("tls:127.0.0.1:5", {"alpn": ("",)}, "1 to 255 bytes"),
        ("tls:127.0.0.1:5", {"serverName": "a..b"}, "invalid name of a server: a..b"),
        ("tcp:127.0.0.1:5", {"serverName": "a"}, "applies to tls:HOST:PORT alone"),
        ("udp:127.0.0.1:5", {"alpn": ("a",)}, "applies to tls:HOST:PORT alone"),
        ("tls:127.0.0.1:5", {"key": "x"}, "a key without its certificate"),
        ("tls:127.0.0.1", {}, "'127.0.0.1' is not HOST:PORT"),
        ("unix:", {}, "1 to 107 bytes"),
        ("unix:" + "x" * 108, {}, "1 to 107 bytes"),
        ("unix-seqpacket:" + "x" * 108, {}, "1 to 107 bytes"),
        ("unix-datagram:", {}, "1 to 107 bytes"),
        ("127.0.0.1:5", {"source": "::1"}, "127.0.0.1 is not of the family of the source address"),
        ("tls:[::1]:5", {"source": "127.0.0.1"}, "::1 is not of the family of the source address"),
        ("unix:a:b", {}, r"a colon in a path is written \:"),
        ("udp:a..b:5", {}, "invalid hostname: a..b"),
        ("localhost", {}, "; a host is written HOST:PORT, IPv6 in brackets"),
        ("::1:5", {}, "; a host is written HOST:PORT, IPv6 in brackets"),
        ("[fe80::1%nowhere]:5", {}, "fe80::1%nowhere: "),
        ("tcp:[nowhere%lo]:5", {}, "invalid hostname: nowhere%lo"),
    ],
)
async def test_what_makes_no_sense_is_a_value_error(
    real: Reactor, target: str, how: dict[str, Any], why: str
) -> None:
    error = await failure(connect(real, target, **how))
    assert isinstance(error, ValueError)
    assert why in str(error)


def test_an_address_keeps_its_scope(reactor: HandReactor, opened: ExitStack) -> None:
    """The kernel refuses what has no address there, but by the interface that was named."""
    said = unreached(reactor, "[fe80::5555:1%lo]:5", timeout=2)
    assert said != "Invalid argument", "a link-local address without its scope"


# TLS


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_server_that_shows_who_it_is_is_spoken_to(
    real: Reactor, secured: Secure, server: Identity, authority: Identity, host: str
) -> None:
    number = secured(server)
    client = await connect(real, f"tls:{host}:{number}", LineClient, cafile=str(authority.certKey))
    replies: list[bytes] = []
    done = client.askAll([b"x" * 50] * 5000, replies.extend)
    closed = client.close()
    await done
    await closed
    assert replies == [b"ok"] * 5000


async def test_a_server_of_another_name_is_asked_for_by_it(
    real: Reactor, secured: Secure, tmp_path: Path, authority: Identity
) -> None:
    number = secured(Identity(tmp_path, "other", authority, ("elsewhere.example",)))
    how: dict[str, Any] = {"cafile": str(authority.certKey)}
    for name in ("elsewhere.example", "elsewhere.example."):
        client = await connect(real, f"tls:127.0.0.1:{number}", serverName=name, **how)
        assert client.transport.getHandle().get_servername() == b"elsewhere.example"
        assert await client.ask(b"a") == b"ok"
        await client.close()
    error = await failure(connect(real, f"tls:localhost:{number}", serverName="x.example", **how))
    assert str(error) == "the server's certificate is not for x.example"


class Terminating(threading.Thread):
    """A TLS server of Python's own, which speaks 1.2 at most and chooses a protocol."""

    def __init__(self, server: Identity, protocols: list[str]) -> None:
        super().__init__()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(server.certKey, server.privateKey)
        if protocols:
            self._context.set_alpn_protocols(protocols)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.target = f"tls:127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        with self._socket:
            connection, _ = self._socket.accept()
        connection.settimeout(PATIENCE)
        try:
            with self._context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            connection.close()


@pytest.mark.parametrize(("offered", "chosen"), [(("x", "b"), "b"), ((), "")])
def test_a_protocol_is_chosen_and_told(
    reactor: HandReactor,
    opened: ExitStack,
    server: Identity,
    authority: Identity,
    offered: tuple[str, ...],
    chosen: str,
) -> None:
    terminating = Terminating(server, ["a", "b"])
    terminating.start()
    opened.callback(terminating.join, PATIENCE)
    told: list[str] = []
    how: dict[str, Any] = {"cafile": str(authority.certKey), "alpn": offered, "tlsMin": "1.2"}
    client = reactor.result(connect(reactor, terminating.target, told=told.extend, **how))
    assert told[0] == f"connected to {terminating.target.removeprefix('tls:')}"
    assert told[1].startswith("TLSv1.2, ")
    assert told[1].endswith(", ALPN b") is bool(chosen)
    assert "CN=server" in told[2]
    reactor.result(client.abort())


def test_a_version_too_low_is_refused(
    reactor: HandReactor, opened: ExitStack, server: Identity, authority: Identity
) -> None:
    terminating = Terminating(server, [])
    terminating.start()
    opened.callback(terminating.join, PATIENCE)
    said = unreached(reactor, terminating.target, cafile=str(authority.certKey), tlsMin="1.3")
    assert "version" in said


async def test_without_verification_anyone_is_spoken_to(
    real: Reactor, secured: Secure, mallory: Identity
) -> None:
    client = await connect(real, f"tls:localhost:{secured(mallory)}", verify=False)
    assert await client.ask(b"a") == b"ok"
    await client.close()


def test_a_certificate_of_nobody_we_trust_is_told(
    running: Running, secure: Secure, server: Identity, mallory: Identity
) -> None:
    target = f"tls:localhost:{secure(server)}"
    said = "the server's certificate comes from an authority that is not trusted"
    assert unreached(running.reactor, target) == said
    assert unreached(running.reactor, target, cafile=str(mallory.certKey)) == said


def test_a_certificate_signed_by_itself_is_told(
    running: Running, secure: Secure, mallory: Identity
) -> None:
    said = unreached(running.reactor, f"tls:localhost:{secure(mallory)}")
    assert said == "the server's certificate is signed by nobody but itself"


def test_a_certificate_that_has_expired_is_told(
    running: Running, secure: Secure, tmp_path: Path, authority: Identity
) -> None:
    old = Identity(tmp_path, "old", authority, days=-1)
    target = f"tls:localhost:{secure(old)}"
    said = unreached(running.reactor, target, cafile=str(authority.certKey))
    assert said == "the server's certificate has expired"


@pytest.mark.parametrize("hosts", [("elsewhere.example",), ()])
def test_a_certificate_of_another_is_told(
    running: Running,
    secure: Secure,
    tmp_path: Path,
    authority: Identity,
    hosts: tuple[str, ...],
) -> None:
    number = secure(Identity(tmp_path, "other", authority, hosts))
    for host in ("localhost", "127.0.0.1"):
        target = f"tls:{host}:{number}"
        said = unreached(running.reactor, target, cafile=str(authority.certKey))
        assert said == f"the server's certificate is not for {host}"


async def test_a_client_shows_its_certificate(
    real: Reactor, secured: Secure, server: Identity, authority: Identity, alice: Identity
) -> None:
    number = secured(server, f":caCerts={authority.certKey}")
    client = await connect(
        real,
        f"tls:localhost:{number}",
        cafile=str(authority.certKey),
        cert=str(alice.certKey),
        key=str(alice.privateKey),
    )
    assert await client.ask(b"a") == b"ok"
    await client.close()


@pytest.mark.parametrize(("shown", "why"), [(False, "certificate required"), (True, "unknown ca")])
async def test_a_client_that_is_refused_is_told(
    real: Reactor,
    secured: Secure,
    server: Identity,
    authority: Identity,
    mallory: Identity,
    shown: bool,
    why: str,
) -> None:
    number = secured(server, f":caCerts={authority.certKey}")
    how: dict[str, Any] = {}
    if shown:
        how = {"cert": str(mallory.certKey), "key": str(mallory.privateKey)}
    # In TLS 1.3 the client is done before the server has looked.
    client = await connect(real, f"tls:localhost:{number}", cafile=str(authority.certKey), **how)
    error = await failure(client.ask(b"a"))
    assert isinstance(error, Unanswered)
    assert str(error) == f"connection lost: the server refused our certificate: {why}"
    assert error.__cause__ is not None
    assert refusal(error.__cause__)


async def test_a_key_of_another_is_told(real: Reactor, alice: Identity, mallory: Identity) -> None:
    how: dict[str, Any] = {"cert": str(alice.certKey), "key": str(mallory.privateKey)}
    error = await failure(connect(real, "tls:localhost:5", **how))
    assert "is not that of the certificate" in str(error)
    error = await failure(connect(real, "tls:localhost:5", cert=str(alice.certKey)))
    assert "holds no private key in PEM" in str(error)


@pytest.mark.parametrize(
    "target", ["tls:localhost:5", "tls:localhost:5:certificate={cert}:privateKey={key}"]
)
async def test_a_key_that_is_encrypted_is_told_and_nobody_asked(
    real: Reactor, server: Identity, target: str
) -> None:
    locked = server.lock()
    how: dict[str, Any] = {"cert": str(server.certKey), "key": str(locked)}
    said = target.format(**how).replace("locked", r"lock\ed")
    error = await failure(connect(real, said, **({} if "=" in target else how)))
    assert str(error) == (
        f"the private key in {locked} is encrypted; decrypt it: openssl pkey -in {locked} -out FILE"
    )


class Saying(threading.Thread):
    """Accepts one connection, reads, says something, and closes."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self._said = said
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listening.getsockname()[1]

    def run(self) -> None:
        with self._listening:
            self._listening.settimeout(PATIENCE)
            connection, _ = self._listening.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.recv(65536)
            connection.sendall(self._said)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\x15\x03\x03\x00\x02\x01\x00", "the server ended the connection in the handshake"),
        (b"220 welcome\r\n", "the server does not speak TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server does not speak TLS"),
        (b"", "the server ended the connection in the handshake"),
    ],
)
def test_a_server_without_tls_is_told(
    running: Running, opened: ExitStack, said: bytes, why: str
) -> None:
    server = Saying(said)
    server.start()
    opened.callback(server.join, PATIENCE)
    assert unreached(running.reactor, f"tls:localhost:{server.number}") == why


def test_a_handshake_that_takes_too_long_is_given_up(running: Running, opened: ExitStack) -> None:
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    outcome = Outcome(
        connect(running.reactor, f"tls:127.0.0.1:{listening.getsockname()[1]}", timeout=2)
    )
    running.reactor.until(lambda: outcome.came, passing=0.1)
    closed(running.reactor)
    assert isinstance(outcome.error, TCPTimedOutError)
    assert explained(outcome.error) == "not connected within 2 seconds"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_peer_that_does_not_answer_is_given_up(
    reactor: HandReactor, opened: ExitStack, host: str
) -> None:
    full = opened.enter_context(closing(socket.socket()))
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    # Fills the backlog: what the next one sends is dropped.
    opened.enter_context(closing(socket.create_connection(full.getsockname())))
    target = f"tcp:{host}:{full.getsockname()[1]}"
    outcome = Outcome(connect(reactor, target, timeout=2, ip=4))
    reactor.until(lambda: outcome.came, passing=0.1)
    assert isinstance(outcome.error, TCPTimedOutError)
    assert explained(outcome.error) == "not connected within 2 seconds"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (SSL.Error([("ssl", "", "sslv3 alert handshake failure")]), "refused TLS: handshake fail"),
        (SSL.Error([("ssl", "", "no shared cipher")]), "TLS failed: no shared cipher"),
        (SSL.Error([]), "TLS failed: cut off"),
        (SSL.Error(), "TLS failed: cut off"),
        (HandshakeError(string="so it is"), "so it is"),
        (ssl.SSLError(), ""),
    ],
)
def test_openssl_is_put_in_words(problem: Exception, said: str) -> None:
    assert said in refusal(problem)
    assert bool(refusal(problem)) == bool(said)
