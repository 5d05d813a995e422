"""For tests of your own protocol: the real client joined to your server in memory."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect

from sockservice.client.datagram import DatagramClient
from sockservice.client.line import LineClient
from sockservice.client.question import Question, Socket
from sockservice.errors import StoreError
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory
from sockservice.server.line import LineServer
from sockservice.server.storing import Heard, SessionHolder, Storing
from sockservice.store.engine import Batch, Item
from sockservice.store.sessions import Ledger, Row
from sockservice.wire.framer import Framer
from sockservice.wire.framing import LF, Framing

#: From where the client speaks, and to where.
CLIENT, SERVER = ("192.0.2.1", 50000), ("192.0.2.2", 5555)

LineProtocol = TypeVar("LineProtocol", bound=LineServer)
DatagramProtocol = TypeVar("DatagramProtocol", bound=DatagramServer)


class MemoryStore(Storing):
    """A store in memory: what is put in it is durable at once, and stands in `lines`.

    Set `problem` to a :class:`~sockservice.StoreError` to have lines refused with it, and to
    None to have them stored again.
    """

    full = False

    def __init__(self) -> None:
        #: The lines, in the order in which they came.
        self.lines: list[bytes] = []
        #: The same with their times, peers and listeners.
        self.batches: list[Batch] = []
        self.problem: StoreError | None = None
        self.holders: dict[str, SessionHolder] = {}
        self._sessions: dict[str, Row] = {}
        self._ledger = Ledger("0" * 32, self._sessions.get, self._sessions.__len__)

    def room(self) -> Deferred[None]:
        """Return a Deferred that has fired: there is room."""
        return succeed(None)

    def append(self, batch: Batch) -> Deferred[None]:
        """Store the lines of `batch`; the Deferred has fired, or failed with `problem`."""
        problem: list[StoreError | None] = []
        self.put(batch, problem.append)
        return succeed(None) if problem[0] is None else fail(problem[0])

    def put(self, batch: Batch, settled: Callable[[StoreError | None], None]) -> None:
        """Store the lines of `batch`, and call `settled`."""
        if self.problem is None:
            self.batches.append(batch)
            self.lines += batch.lines
        settled(self.problem)

    def putItems(self, items: Sequence[Item], heard: Heard) -> None:
        """Carry out `items`, and call `heard`."""
        if self.problem is not None:
            heard(self.problem, ())
            return
        decided = self._ledger.decide(items)
        self._sessions.update(decided.rows)
        for batch in decided.batches:
            self.batches.append(batch)
            self.lines += batch.lines
        heard(None, decided.outcomes)


class Pair(Generic[LineProtocol]):
    """A LineClient connected to a server that `protocol` makes; no sockets, no reactor.

    `framing`, `ending` and `greeting` are the client's, as for :func:`~sockservice.connect`;
    `settings` those of :class:`~sockservice.server.factory.LineFactory`. A protocol that
    `stores` gets a :class:`MemoryStore` if it is given no other. The time of both is `clock`.
    Bytes move when `flush` is called, and each time that somebody asks.
    """

    def __init__(
        self,
        protocol: Callable[[], LineProtocol],
        *,
        framing: Callable[[int], Framing] = Framer,
        ending: bytes = LF,
        greeting: bool = False,
        store: MemoryStore | None = None,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        #: Where lines are stored, if the protocol stores any.
        self.store = store or MemoryStore()
        self.factory = LineFactory(self.clock, protocol, store=store, **settings)
        self._made = protocol
        self._client = framing, ending, greeting
        self._join(CLIENT[1])

    def another(self) -> "Pair[LineProtocol]":
        """Return the pair of another client and its connection to the same service."""
        other = object.__new__(Pair)
        vars(other).update(vars(self))
        other._join(self._port + 1)
        return other

    def _join(self, port: int) -> None:
        self._port = port
        server: LineProtocol = self.factory.buildProtocol(IPv4Address("TCP", CLIENT[0], port))
        if server.stores and self.factory.store is None:
            self.factory.store = self.store
        self.server = server
        self.client = LineClient(self.clock, *self._client)
        self._wire = _Wire(server, isServer=True)
        self._pump = connect(
            server, self._wire, self.client, FakeTransport(self.client, isServer=False)
        )

    def flush(self) -> None:
        """Move bytes both ways until neither side has any to send, and the end behind them."""
        self._pump.flush()
        if self._wire.ended and not self._wire.stalled:
            # A client that has read the server's end closes as well.
            self._wire.loseConnection()
            self._pump.flush()

    def ask(self, line: bytes) -> Deferred[bytes]:
        """Ask `line` as the client, and flush."""
        reply = self.client.ask(line)
        self.flush()
        return reply

    def reply(self, line: bytes) -> bytes:
        """Ask `line` as the client, and return the reply.

        :raises AssertionError: None has come; the text says what has, and why no more will.
        """
        reply: bytes = self._came(f"a reply to {line!r}", self.ask(line))
        return reply

    def greeting(self) -> bytes:
        """Return the server's greeting.

        :raises AssertionError: None has come.
        """
        self.flush()
        self._came("a greeting", self.client.greeted())
        assert self.client.greeting is not None, "a greeting is not expected: greeting=True"
        return self.client.greeting

    def told(self) -> list[bytes]:
        """Return the lines that answer none and have come since the last call."""
        self.flush()
        told = list(self.client._unasked.kept)
        self.client._unasked.kept.clear()
        return told

    def stall(self) -> None:
        """Have the client read nothing more, until `unstall`; the server notices when it writes."""
        self._wire.stalled = True

    def unstall(self) -> None:
        """Have the client read again, and all arrive that waited for it."""
        self._wire.stalled = False
        self.flush()
        if self._wire.producer is not None:
            self._wire.producer.resumeProducing()
        self.flush()

    def close(self) -> None:
        """Close as the client, once all replies are in; the connection has ended then.

        :raises AssertionError: It has not: replies are outstanding.
        """
        closed = self.client.close()
        self.flush()
        self._came("the end of the connection", closed)

    def _came(self, what: str, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        if not results:
            raise AssertionError(f"{what} has not come; {self._rest()}")
        if isinstance(results[0], Failure):
            why = results[0].getErrorMessage()
            raise AssertionError(f"{what} has not come: {why}; {self._rest()}")
        return results[0]

    def _rest(self) -> str:
        told = list(self.client._unasked.kept)
        return f"replies awaited: {self.client.outstanding}; lines that answer none: {told}"


class _Wire(FakeTransport):
    """The server's transport in memory, which may be full, and closed in one direction."""

    ended = False
    stalled = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.stalled and self.producer is not None:
            self.producer.pauseProducing()

    def getOutBuffer(self) -> Any:
        return None if self.stalled else super().getOutBuffer()

    def abortConnection(self) -> None:
        self.stalled = False
        self.stream = []
        super().abortConnection()

    def loseWriteConnection(self) -> None:
        self.ended = True


class DatagramPair(Generic[DatagramProtocol]):
    """A DatagramClient and a server that `protocol` makes: what one sends, the other has.

    `settings` are those of the protocol; `store` and `clock` are made if they are not given.
    """

    def __init__(self, protocol: Callable[..., DatagramProtocol], **settings: Any) -> None:
        self.clock: Clock = settings.setdefault("clock", Clock())
        self.store: MemoryStore = settings.setdefault("store", MemoryStore())
        self.server = protocol(**settings)
        self._open: dict[tuple[str, int], _Socket] = {}
        self.client = DatagramClient(self.clock, SERVER, self._opened)
        # A reply that is no echo need not be held: nothing is late here.
        self.client.decide()
        wire: Any = _Datagrams(self._open)
        self.client.makeConnection(wire)
        self.server.makeConnection(wire)

    def _opened(self, question: Question) -> Socket:
        """Return a socket of the client's for `question`, at the first port that is free."""
        host, port = CLIENT
        while (host, port) in self._open:
            port += 1
        self._open[host, port] = opened = _Socket(self.server, (host, port), question, self._open)
        return opened

    def ask(self, datagram: bytes) -> Deferred[bytes]:
        """Ask as the client; the Deferred fails after 5 seconds of `clock`."""
        return self.client.ask(datagram)

    def reply(self, datagram: bytes) -> bytes:
        """Send `datagram` as the client, and return the reply.

        :raises AssertionError: None has come.
        """
        results: list[Any] = []
        self.ask(datagram).addBoth(results.append)
        if not results:
            raise AssertionError(f"a reply to {datagram!r} has not come")
        if isinstance(results[0], Failure):
            raise AssertionError(f"a reply to {datagram!r} has not come: {results[0].value}")
        reply: bytes = results[0]
        return reply


class _Socket:
    """The client's socket for one question, at `address`, until it is closed."""

    def __init__(
        self,
        server: DatagramServer,
        address: tuple[str, int],
        question: Question,
        among: "dict[tuple[str, int], _Socket]",
    ) -> None:
        self._server = server
        self.address = address
        self.question = question
        self._among = among

    def send(self, datagram: bytes) -> None:
        self._server.datagramReceived(datagram, self.address)

    def close(self) -> None:
        del self._among[self.address]


class _Datagrams:
    """The server's transport in memory; what it writes arrives at once at one of `sockets`."""

    def __init__(self, sockets: dict[tuple[str, int], _Socket]) -> None:
        self._sockets = sockets

    def write(self, datagram: bytes, addr: Any = None) -> None:
        """Have the client receive it at `addr`, if it has a socket there."""
        to = self._sockets.get(addr)
        if to is not None:
            to.question.received(datagram)

    def getHost(self) -> IPv4Address:
        """Return the address."""
        return IPv4Address("UDP", *SERVER)

    def pauseProducing(self) -> None:
        """Nothing is kept here."""

    def resumeProducing(self) -> None:
        """Nothing is kept here."""
