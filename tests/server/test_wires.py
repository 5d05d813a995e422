"""On every wire, whatever it waited for, a connection goes on once nothing is in the way.

Peers on real sockets, TCP and UNIX ones, in the clear, over TLS and behind a PROXY header, send
in pieces, stop reading and read on, while the store stops and fails and the rate of lines
changes, in an order that is drawn. In the end each has all its replies.
"""

import random
import socket
import ssl
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from sockservice import Ack, LineFactory, LineServer, Wrapping
from sockservice.errors import StoreError
from sockservice.limits.admission import Admission, Limits
from sockservice.net.stream import StreamPort
from sockservice.server.answers import Answer
from sockservice.server.lone import LoneLines
from sockservice.server.proxy import ProxyFactory
from sockservice.store import groupcommit
from sockservice.store.groupcommit import Store
from tests.certificates import Identity
from tests.conftest import HandReactor
from tests.server.gate import Gate

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

LINES = 150
#: Bytes of the sockets' buffers, about, and of a long reply.
BUFFER, LONG = 4096, 3000
#: So many orders of events are drawn.
SEEDS = 3


class Lengthy(LineServer):
    """Answers each line at length, some of them later."""

    answerLimit = 10

    def answer(self, line: bytes) -> Answer:
        reply = b"x" * LONG
        if line.startswith(b"k"):
            return self.keep([line]).addBoth(lambda _: reply)
        return reply


class Peer:
    """A client that never waits."""

    def __init__(self, at: Any, header: bytes, tls: ssl.SSLContext | None, data: bytes) -> None:
        plain = socket.socket(socket.AF_INET if isinstance(at, tuple) else socket.AF_UNIX)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        plain.connect(at)
        plain.sendall(header)
        plain.setblocking(False)
        self.socket: Any = plain
        if tls is not None:
            self.socket = tls.wrap_socket(plain, do_handshake_on_connect=False)
        self.rest = data
        self._sending = b""
        self.lines = data.count(b"\n")
        self.replies = 0
        self.reads = True

    def step(self, size: int) -> None:
        """Send so much at most, and read what is there."""
        waiting = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        if self.rest:
            # OpenSSL wants to be given again what it could not send.
            self._sending = self._sending or self.rest[:size]
            with suppress(*waiting):
                self.rest = self.rest[self.socket.send(self._sending) :]
                self._sending = b""
        if self.reads:
            with suppress(*waiting):
                self.replies += self.socket.recv(65536).count(b"\n")

    @property
    def done(self) -> bool:
        return not self.rest and self.replies == self.lines


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("identity"), "server")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_peer_has_all_its_replies_in_the_end(
    reactor: HandReactor,
    opened: ExitStack,
    store: Store,
    engine: Gate,
    identity: Identity,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(groupcommit, "PENDING_LIMIT", 200)
    monkeypatch.setattr(Ack, "answerLimit", draw.choice((5, 8192)))
    admission = Admission(Limits())
    watching: Any = LoneLines(reactor, admission)
    tls = Wrapping({"privateKey": str(identity.privateKey), "certKey": str(identity.certKey)})
    trusting = ssl.create_default_context(cafile=str(identity.certKey))
    trusting.check_hostname = False
    peers: list[Peer] = []
    for number in range(10):
        protocol, kept = draw.choice([(Ack, None), (Ack, store), (Lengthy, store)])
        secure, proxied = draw.random() < 0.5, draw.random() < 0.3
        factory = LineFactory(reactor, protocol, store=kept, admission=admission)
        served: Any = tls(factory) if secure else factory
        if proxied:
            served = ProxyFactory(served)
        local = draw.random() < 0.3
        family = socket.AF_UNIX if local else socket.AF_INET
        bound = opened.enter_context(closing(socket.socket(family)))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        # A name that the system chooses, or a number.
        bound.bind("" if local else ("127.0.0.1", 0))
        port = StreamPort(reactor, bound, served, 10, watching)
        port.startListening()
        opened.callback(lambda factory=factory: reactor.result(factory.drain()))  # type: ignore[misc]
        opened.callback(factory.cut)
        opened.callback(port.stopListening)
        header = b"PROXY TCP4 192.0.2.1 192.0.2.2 %d 555\r\n" % (1024 + number)
        data = b"".join(
            draw.choice((b"k%d\n", b"%d\n")) % n * draw.choice((1, 1, 3)) for n in range(LINES)
        )
        at = bound.getsockname()
        peers.append(Peer(at, header * proxied, trusting if secure else None, data))
        opened.enter_context(closing(peers[-1].socket))

    def happens() -> None:
        peer = draw.choice(peers)
        draw.choice(
            [
                *[lambda: peer.step(draw.choice((1, 7, 50, 500)))] * 10,
                *[lambda: setattr(peer, "reads", draw.random() < 0.5)] * 2,
                engine.open_.clear,
                engine.open_.set,
                lambda: setattr(engine, "problem", StoreError("disk full", retry=True)),
                *[lambda: setattr(engine, "problem", None)] * 2,
                lambda: admission.change(Limits(lineRate=draw.choice((0, 0, 3, 100)))),
                lambda: reactor.advance(draw.choice((0.01, 0.3, 1.0))),
                *[lambda: reactor.iterate(draw.choice((0, 0.001)))] * 10,
            ]
        )()

    for _ in range(1000):
        happens()
    engine.problem = None
    engine.open_.set()
    admission.change(Limits())
    for peer in peers:
        peer.reads = True

    def allDone() -> bool:
        for peer in peers:
            peer.step(1000)
        return all(peer.done for peer in peers)

    try:
        reactor.until(allDone, passing=0.1)
    except AssertionError:
        pytest.fail(
            "\n".join(
                f"{number}: {len(peer.rest)} bytes to send, {peer.replies} replies of {peer.lines}"
                for number, peer in enumerate(peers)
            )
        )
