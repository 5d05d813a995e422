"""TLS: certificates, mutual ones, and lines over the real thing on the loopback."""

import ssl
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Identity
from tests.conftest import HandReactor, Log, Running

# Twisted and pyOpenSSL say so of each other, and Twisted of its own endpoint's `sslmethod`.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Passing method to:DeprecationWarning"),
]

# What the smallest DH parameters look like that OpenSSL takes: RFC 7919, ffdhe2048.
FFDHE2048 = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Client:
    """A TLS client of Python's own, in the turns of the reactor."""

    def __init__(
        self,
        running: Running,
        opened: ExitStack,
        trusted: Identity,
        shown: Identity | None = None,
        before: bytes = b"",
    ) -> None:
        self._reactor: HandReactor = running.reactor
        context = ssl.create_default_context(cafile=str(trusted.certKey))
        context.check_hostname = False
        if shown is not None:
            context.load_cert_chain(shown.certKey, shown.privateKey)
        [(_, host, port)] = running.addresses
        plain = running.peer(host, port)
        plain.sendall(before)
        plain.setblocking(False)
        self.socket = opened.enter_context(
            closing(context.wrap_socket(plain, do_handshake_on_connect=False))
        )

    def _until(self, does: Callable[[], Any]) -> Any:
        results: list[Any] = []

        def come() -> bool:
            try:
                results.append(does())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            return True

        self._reactor.until(come)
        return results[0]

    def shake(self) -> None:
        self._until(self.socket.do_handshake)

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._until(partial(self.socket.send, left)) :]

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece: bytes = self._until(lambda: self.socket.recv(65536))
            if not piece:
                break
            data += piece
        return data


def listen(said: str) -> tuple[str, str]:
    return "--listen", f"ssl:0:interface=127.0.0.1:{said}"


def test_lines_are_acknowledged_over_tls(
    running: Running, opened: ExitStack, authority: Identity, server: Identity
) -> None:
    service = running.start(*listen(server.said))
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\nb\r\n")
    assert client.receive(7) == b"ok\nok\r\n"
    stopping = running.stopping(service)
    assert client.receive(1) == b""
    client.socket.close()
    running.reactor.result(stopping)


def test_a_connection_that_is_closed_from_this_side_ends(
    running: Running, opened: ExitStack, authority: Identity, server: Identity, log: Log
) -> None:
    running.start("--listen", f"tests.doubles.Bye@{listen(server.said)[1]}")
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\n")
    assert client.receive(100) == b"bye\n"
    client.socket.close()
    running.reactor.until(lambda: [text for text in log.texts if " closed: lines=1 " in text])


def test_key_and_certificates_may_be_in_one_file(
    running: Running,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("server.pem").write_bytes(
        server.privateKey.read_bytes()
        + server.certKey.read_bytes()
        + authority.certKey.read_bytes()
    )
    running.start("--listen", "ssl:0:interface=127.0.0.1")
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\n")
    assert client.receive(3) == b"ok\n"


def test_a_chain_parameters_and_a_method_may_be_given(
    running: Running,
    opened: ExitStack,
    identities: Path,
    authority: Identity,
    server: Identity,
    tmp_path: Path,
) -> None:
    (tmp_path / "dh.pem").write_bytes(FFDHE2048)
    running.start(
        *listen(
            f"{server.said}:extraCertChain={authority.certKey}"
            f":dhParameters={tmp_path}/dh.pem:sslmethod=TLS_METHOD"
        )
    )
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\n")
    assert client.receive(3) == b"ok\n"


def test_the_subject_of_a_verified_certificate_names_the_peer(
    running: Running,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    alice: Identity,
    log: Log,
) -> None:
    running.start(*listen(f"{server.said}:caCerts={authority.certKey}"))
    client = Client(running, opened, authority, alice)
    client.shake()
    client.send(b"a\n")
    assert client.receive(3) == b"ok\n"
    host, port = client.socket.getsockname()
    assert f"{host}:{port} (CN=alice,OU=tests,O=sockservice) has shown its certificate" in log.texts


def test_a_flood_of_certificates_is_summed_up(
    running: Running,
    reactor: HandReactor,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    alice: Identity,
    log: Log,
) -> None:
    running.start(*listen(f"{server.said}:caCerts={authority.certKey}"), "--log-limit", "1")
    for _ in range(3):
        client = Client(running, opened, authority, alice)
        client.shake()
        client.send(b"a\n")
        assert client.receive(3) == b"ok\n"
    assert len([text for text in log.texts if "has shown its certificate" in text]) == 1


@pytest.mark.parametrize("shown", ["none", "another's"])
def test_a_client_without_a_certificate_of_the_authority_is_refused(
    running: Running,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    mallory: Identity,
    shown: str,
    log: Log,
) -> None:
    running.start(*listen(f"{server.said}:caCerts={authority.certKey}"))
    client = Client(running, opened, authority, mallory if shown != "none" else None)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        client.shake()
        client.send(b"a\n")
        client.receive(1)
    assert [text for text in log.texts if " closed: lines=0 " in text]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x80\x01\x02\x03\x04", "the peer does not speak TLS"),
        (b"\x16\x03\x01\0\5\1\0\0\1\0", "TLS failed: bad extension"),
    ],
)
def test_why_tls_has_failed_is_told_in_one_line(
    running: Running, opened: ExitStack, server: Identity, sent: bytes, why: str, log: Log
) -> None:
    running.start(*listen(server.said))
    peer = running.peer(*running.addresses[0][1:])
    peer.sendall(sent)
    running.reactor.until(lambda: " closed: lines=0 " in log.texts[-1])
    assert log.texts[-1].partition(" s: ")[2] == why


def test_a_client_that_does_not_trust_us_is_told_of_in_one_line(
    running: Running, opened: ExitStack, server: Identity, mallory: Identity, log: Log
) -> None:
    running.start(*listen(server.said))
    with pytest.raises(ssl.SSLError):
        Client(running, opened, mallory).shake()
    running.reactor.until(lambda: " closed: lines=0 " in log.texts[-1])
    assert log.texts[-1].endswith(" s: the peer refused our certificate: unknown ca")


def test_a_client_that_speaks_no_tls_is_refused_and_others_are_served(
    running: Running, opened: ExitStack, authority: Identity, server: Identity, log: Log
) -> None:
    running.start(*listen(server.said))
    [(_, host, port)] = running.addresses
    assert running.ask(host, port, b"a\n") == b"error this port speaks TLS\n"
    assert running.ask(host, port, b"a\n") == b"error this port speaks TLS\n"
    assert len([text for text in log.texts if "refused: this port speaks TLS" in text]) == 1
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\n")
    assert client.receive(3) == b"ok\n"


def test_a_peer_that_reads_late_is_not_read_and_gets_every_reply(
    running: Running, opened: ExitStack, authority: Identity, server: Identity
) -> None:
    """Lines are sent until nobody takes them any more, then all replies are read."""
    small = [f"--socket-option=SO_{each}BUF=20000" for each in ("SND", "RCV")]
    running.start("--listen", f"echo@{listen(server.said)[1]}", *small)
    client = Client(running, opened, authority)
    client.shake()
    # What a send would not take, TLS wants to be given again.
    lines = (b"x" * 1023 + b"\n") * 16
    sent, refused = 0, 0
    while refused < 20:
        try:
            assert client.socket.send(lines) == len(lines)
            sent, refused = sent + len(lines), 0
        except ssl.SSLWantWriteError:
            running.reactor.iterate(0.005)
            refused += 1
        assert sent < 100 * 2**20
    assert len(client.receive(sent)) == sent


def test_a_peer_that_closes_at_once_is_answered_all_the_same(
    running: Running, opened: ExitStack, authority: Identity, server: Identity, log: Log
) -> None:
    running.start(*listen(server.said))
    client = Client(running, opened, authority)
    client.shake()
    client.send(b"a\n" * 1000)
    client.socket.close()
    running.reactor.until(
        lambda: [text for text in log.texts if " closed: lines=1000 refused=0 after " in text]
    )


def test_a_proxy_header_stands_in_the_clear_before_tls(
    running: Running, opened: ExitStack, authority: Identity, server: Identity, log: Log
) -> None:
    running.start("--listen", f"haproxy:{listen(server.said)[1]}")
    header = b"PROXY TCP4 192.0.2.7 192.0.2.9 4000 555\r\n"
    client = Client(running, opened, authority, before=header)
    client.shake()
    client.send(b"a\n")
    assert client.receive(3) == b"ok\n"
    assert "192.0.2.7:4000 connected" in log.texts


def test_who_does_not_shake_hands_in_time_is_cut(
    running: Running, server: Identity, log: Log
) -> None:
    running.start(*listen(server.said), "--line-timeout", "5")
    [(_, host, port)] = running.addresses
    peer = running.peer(host, port)
    for _ in range(9):
        running.reactor.advance(1)
    with pytest.raises(ConnectionResetError):
        running.reactor.received(peer)
    assert [text for text in log.texts if " cut: no TLS handshake for 5 seconds" in text]


def test_who_never_reads_over_tls_makes_room(
    running: Running, opened: ExitStack, authority: Identity, server: Identity, log: Log
) -> None:
    small = [f"--socket-option=SO_{each}BUF=20000" for each in ("SND", "RCV")]
    running.start("--listen", f"echo@{listen(server.said)[1]}", *small, "--memory-limit", "50K")
    client = Client(running, opened, authority)
    client.shake()
    lines = (b"x" * 1023 + b"\n") * 16

    def cut() -> bool:
        with suppress(ssl.SSLWantWriteError, ConnectionError):
            client.socket.send(lines)
        return bool([text for text in log.texts if " cut: busy: 51200 bytes held" in text])

    running.reactor.until(cut)


# Files that are not what they should be


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("privateKey={}/none", "ssl: {}/none: No such file or directory"),
        ("privateKey={0}/server.key:certKey={0}/none", "ssl: {}/none: No such file or directory"),
        ("privateKey={0}/none:certKey={0}/server.crt", "ssl: {}/none: No such file or directory"),
        ("privateKey={}/server.key", "ssl: {}/server.key holds no certificate in PEM"),
        ("privateKey={}/server.crt", "ssl: {}/server.crt holds no private key in PEM"),
        ("privateKey={}", "ssl: {}: it is a folder; a regular file is wanted"),
        ("{server}:caCerts={}/none", "ssl: {}/none: No such file or directory"),
        ("{server}:caCerts={}/server.key", "ssl: {}/server.key holds no certificate in PEM"),
        ("{server}:extraCertChain={}/none", "ssl: {}/none: No such file or directory"),
        ("{server}:dhParameters={}/none", "ssl: {}/none: No such file or directory"),
        ("{server}:sslmethod=NOTHING", "ssl: there is no method NOTHING"),
        (
            "privateKey={0}/locked.key:certKey={0}/server.crt",
            "ssl: the private key in {0}/locked.key is encrypted; "
            "decrypt it: openssl pkey -in {0}/locked.key -out FILE",
        ),
        (
            "privateKey={0}/alice.key:certKey={0}/server.crt",
            "ssl: the private key in {}/alice.key is not that of the certificate",
        ),
    ],
)
@pytest.mark.usefixtures("alice")
def test_a_file_that_is_missing_or_something_else_is_told(
    running: Running, identities: Path, server: Identity, said: str, why: str
) -> None:
    server.lock()
    assert running.fail(*listen(said.format(identities, server=server.said))) == why.format(
        identities
    )


TORN = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("option", ["certKey", "caCerts", "extraCertChain"])
def test_a_certificate_that_is_nonsense_inside_is_told(
    running: Running, server: Identity, tmp_path: Path, option: str
) -> None:
    (tmp_path / "torn.pem").write_text(TORN)
    said = f"{option}={tmp_path}/torn.pem"
    whole = f"privateKey={server.privateKey}:{said}" if option == "certKey" else server.said
    said = running.fail(*listen(whole if option == "certKey" else f"{whole}:{said}"))
    assert said == f"ssl: {tmp_path}/torn.pem holds no certificate in PEM"


def test_parameters_that_are_nonsense_are_told(
    running: Running, server: Identity, tmp_path: Path
) -> None:
    (tmp_path / "dh.pem").write_text("nonsense")
    said = running.fail(*listen(f"{server.said}:dhParameters={tmp_path}/dh.pem"))
    assert said == f"ssl: {tmp_path}/dh.pem holds no DH parameters in PEM"


def test_what_is_no_method_is_told(running: Running, server: Identity) -> None:
    said = running.fail(*listen(f"{server.said}:sslmethod=OP_ALL"))
    assert said == "ssl: there is no method OP_ALL"


def test_without_the_extra_the_remedy_is_told(
    running: Running, server: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sockservice.net.tls.halfclose", raising=False)
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    said = running.fail(*listen(server.said))
    assert said == "ssl: needs OpenSSL; install it with pip install 'sockservice[tls]'"
