"""The real sender of a session against the real server and store, whatever breaks between them."""

import os
from copy import deepcopy
from queue import Queue
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice import LineFactory
from sockservice.client.session import (
    Behind,
    Different,
    Forgotten,
    SessionRefused,
    SessionSender,
    TakenOver,
)
from sockservice.errors import StoreError
from sockservice.server.session import Session
from sockservice.store.engine import Item, Marked, Outcome
from sockservice.store.groupcommit import Store
from sockservice.store.memory import Memory
from sockservice.store.sessions import Row
from sockservice.wire.session import Opened
from tests.conftest import PATIENCE
from tests.doubles import Wire

NAME = "demo"
#: Whatever waits for its time is due after so many seconds.
LATER = 100.0
#: Senders, at most.
MOST = 3
CHOSEN = st.integers(0, MOST - 1)
#: How much of what is on its way arrives.
SHARE = st.sampled_from([1.0, 0.7, 0.3])
BREAKS = (
    *("nothing", "cut", "half-open", "kill", "other", "rival", "full", "unknown", "rerun"),
    *("copy", "restore", "empty"),
)


class Disk:
    """What is left of a store when its process has ended."""

    def __init__(self) -> None:
        self.identity = os.urandom(16).hex()
        self.lines: list[bytes] = []
        self.rows: dict[str, Row] = {}
        #: The lines that there were at each opening, by its epoch.
        self.openings: dict[int, list[bytes]] = {}
        #: An epoch came twice, or lines were stored of one that was over.
        self.wrong = False


class Engine(Memory):
    """The engine in memory on a disk that outlives it."""

    dead = False

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.sessions.update(deepcopy(disk.rows))
        self._ledger._store = disk.identity

    def commit(self, batches: Any) -> Any:
        if self.dead:
            raise StoreError("killed", retry=False)
        items: list[Item] = list(batches)
        outcomes: list[Outcome] = []
        try:
            outcomes = list(super().commit(items) or [])
        finally:
            self.disk.lines += [line for _, _, line in self.kept]
            self.kept.clear()
            self.disk.rows = deepcopy(self.sessions)
            self._note(items, outcomes)
        return outcomes

    def _note(self, items: list[Item], outcomes: list[Outcome]) -> None:
        openings = self.disk.openings
        for item, outcome in zip(items, outcomes, strict=False):
            if isinstance(outcome, Opened):
                self.disk.wrong |= outcome.epoch in openings
                openings[outcome.epoch] = self.disk.lines[: outcome.position]
            elif isinstance(item, Marked) and outcome is None:
                self.disk.wrong |= item.mark.epoch != max(openings)


class Turns(Clock):
    """A reactor that does what a thread asks of it when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Queue[Any] = Queue()

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.asked.put((call, arguments))


class Server:
    """The process that serves."""

    def __init__(self, disk: Disk) -> None:
        self.engine = Engine(disk)
        self.reactor = Turns()
        self.untold: list[Any] = []
        self.store = Store(self.reactor, self.engine)
        self.store.start()
        self.factory = LineFactory(self.reactor, Session, store=self.store)

    def commit(self, told: bool = True, first: bool = False) -> None:
        """Have all that has arrived stored; its senders are told only if they are to be.

        `first`: before those are told of whom an earlier commit was.
        """
        if not first:
            self.tell()
        self.reactor.advance(0)
        while self.store._unsettled > sum(len(puts) for _, (puts, _) in self.untold):
            self.untold.append(self.reactor.asked.get(timeout=PATIENCE))
        if told:
            self.tell()

    def tell(self) -> None:
        """Have senders told what was stored without their being told."""
        untold, self.untold = self.untold, []
        for call, arguments in untold:
            call(*arguments)

    def kill(self) -> None:
        self.engine.dead = True
        self.store.stop()


class Link:
    """A connection: what one side has written arrives when it is moved."""

    def __init__(self, sender: "Sender", client: Any, server: Server, port: int) -> None:
        address = IPv4Address("TCP", "192.0.2.1", port)
        self.sender = sender
        self.client, self.near = client, Near(self)
        self.far = Wire(peerAddress=address)
        self.server: Any = server.factory.buildProtocol(address)
        self.up = self.down = b""
        self.heard = b""
        self.open = True
        self.served = True
        self.server.makeConnection(self.far)

    def moveUp(self, share: float) -> None:
        self.up += self.near.sent()
        count = round(len(self.up) * share)
        arriving, self.up = self.up[:count], self.up[count:]
        if arriving and self.served and not (self.far.disconnecting or self.far.cut):
            self.server.dataReceived(arriving)

    def comes(self, share: float) -> list[bytes]:
        """Return the lines that the client would receive the last byte of."""
        waiting = self.down + b"".join(self.far.writes)
        return (self.heard + waiting[: round(len(waiting) * share)]).split(b"\n")[:-1]

    def moveDown(self, share: float) -> None:
        """Have the client receive a part of what waits, and see the end behind it."""
        self.down += self.far.sent()
        count = round(len(self.down) * share)
        arriving, self.down = self.down[:count], self.down[count:]
        self.heard = (self.heard + arriving).rpartition(b"\n")[2]
        if arriving:
            self.client.dataReceived(arriving)
        if self.open and not self.down and (self.far.disconnecting or self.far.cut):
            self.lose(ConnectionDone())

    def lose(self, why: Exception, *, noticed: bool = True) -> None:
        """End it for the client, and for the server if it is `noticed` there."""
        if self.open:
            self.open = False
            self.client.connectionLost(Failure(why))
        if noticed:
            self.unserve()

    def unserve(self) -> None:
        if self.served:
            self.served = False
            self.server.connectionLost(Failure(ConnectionLost()))


class Near(Wire):
    """The client's end."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def loseConnection(self) -> None:
        self._link.lose(ConnectionDone())

    def abortConnection(self) -> None:
        self._link.lose(ConnectionLost())


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects to the server that there is."""

    def __init__(self, world: "Sessions") -> None:
        self._world = world
        self.sender: Sender

    def connect(self, factory: Any) -> Deferred[Any]:
        protocol = factory.buildProtocol(None)
        self._world.ports += 1
        link = Link(self.sender, protocol, self._world.server, self._world.ports)
        self.sender.links.append(link)
        protocol.makeConnection(link.near)
        return succeed(protocol)


class Source:
    """Lines that are to be stored once; whoever sends them may be killed and started again."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: What the session held before the first of them, once that is known.
        self.before: list[bytes] | None = None
        self.lines: list[bytes] = []
        self.acknowledged = 0
        #: Lines that were acknowledged are gone with the rest of the store.
        self.robbed = False

    def more(self, count: int) -> list[bytes]:
        at = len(self.lines)
        self.lines += [b"%d:%d" % (self.number, n) for n in range(at, at + count)]
        return self.lines[at:]


class Sender(SessionSender):
    """Sends a source. In its first opening it finds the place where that goes on."""

    def __init__(self, world: "Sessions", source: Source) -> None:
        self.clock = Clock()
        self.links: list[Link] = []
        self.problem: BaseException | None = None
        self.source = source
        #: Lines that it knows or takes for stored, from the first opening on.
        self.placed = False
        self.world = world
        self.store = ""
        endpoint = Endpoint(world)
        endpoint.sender = self
        super().__init__(self.clock, endpoint, NAME, backoff=lambda _: 1.0)
        self.startService()

    def retrying(self, why: str, delay: float) -> None:
        pass

    def gaveUp(self, why: str, cause: BaseException | None) -> None:
        assert self.problem is None
        self.problem = cause

    @property
    def knows(self) -> list[bytes]:
        return [*(self.source.before or []), *self.source.lines]

    async def opened(self, opened: Opened) -> None:
        if self.placed:
            return
        source, stored = self.source, self.world.disk.openings[opened.epoch]
        if source.before is None:
            source.before = stored
        if self.knows[: opened.position] != stored or opened.position < len(source.before):
            raise Different("the input is another")
        self.placed = True
        at = opened.position - len(source.before)
        # What was lost with a store is sent again, since the source can be read again.
        source.acknowledged, source.robbed = at, False
        # Once this has returned.
        self.clock.callLater(0, self.give, source.lines[at:])

    def give(self, lines: list[bytes]) -> None:
        """Send lines of the source, some at a time."""
        for at in range(0, len(lines), 3):
            self.sendAll(lines[at : at + 3], self._came).addErrback(lambda _: None)

    def _came(self, replies: list[bytes]) -> None:
        assert replies == [b"ok"] * len(replies)
        self.source.acknowledged += len(replies)

    def expected(self, opened: Opened) -> Any:
        """Return the kind of problem that a reply to the hello has to be."""
        stored = self.world.disk.openings[opened.epoch]
        if not self.placed:
            before = self.source.before
            other = before is not None and (
                len(stored) < len(before) or self.knows[: len(stored)] != stored
            )
            return Different if other else type(None)
        assert self.position is not None
        if self.position and (opened.new or opened.store != self.store):
            return Forgotten
        if len(stored) < self.position:
            return Behind
        known = [*self.knows[: self.position], *self.unacknowledged]
        return type(None) if known[: len(stored)] == stored else Different


class Sessions(RuleBasedStateMachine):
    """One session, those who send to it, and a server that breaks.

    The model is what each source has given: stored is a part of that, from its beginning, in
    order, once, with all that was acknowledged; and a sender stops for what has happened and
    for nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.server = Server(self.disk)
        self.copies: list[Disk] = []
        self.ports = 0
        self.sources: list[Source] = []
        self.senders: list[Sender] = []
        self.rival()

    def sender(self, chosen: int) -> Sender:
        return self.senders[chosen % len(self.senders)]

    def rival(self) -> None:
        """Another sender comes, of other lines."""
        self.sources.append(Source(len(self.sources)))
        self.senders.append(Sender(self, self.sources[-1]))

    def send(self, sender: Sender, count: int) -> None:
        lines = sender.source.more(count)
        # The others wait until it is known where to begin.
        if sender.placed:
            sender.give(lines)

    def arrive(self, sender: Sender, share: float = 1.0) -> None:
        """The server receives something, of a connection that the client has lost, too."""
        for link in sender.links:
            link.moveUp(share)

    def receive(self, sender: Sender, share: float = 1.0) -> None:
        """The client receives something, and does what it has to."""
        if not sender.links or not sender.links[-1].open:
            return
        link = sender.links[-1]
        expected: Any = type(sender.problem)
        for line in link.comes(share):
            if line.startswith(b"session/1 "):
                opened = Opened.parse(line)
                expected = sender.expected(opened)
                sender.store = opened.store
            elif line.startswith(b"error session: taken over "):
                expected = TakenOver
            elif line.startswith(b"error session: "):
                expected = SessionRefused
            if expected is not type(None):
                break
        link.moveDown(share)
        assert type(sender.problem) is expected, (sender.problem, expected)
        sender.clock.advance(0)

    def settle(self, sender: Sender) -> None:
        """All goes well for a while."""
        for _ in range(3):
            sender.clock.advance(0 if sender.links and sender.links[-1].open else LATER)
            self.arrive(sender)
            self.server.commit()
            self.receive(sender)

    def rerun(self, sender: Sender) -> None:
        """A sender is killed, or had stopped, and its source is sent by a new one."""
        for link in sender.links:
            link.lose(ConnectionLost(), noticed=False)
        sender.problem = sender.problem or SystemExit()
        sender.stopService()
        self.senders[self.senders.index(sender)] = Sender(self, sender.source)

    def started(self, disk: Disk) -> None:
        """The server is killed, and another begins with what is on `disk`."""
        self.server.kill()
        links = [link for sender in self.senders for link in sender.links]
        for link in links:
            link.served = False
        self.disk = disk
        self.server = Server(disk)
        for link in links:
            link.lose(ConnectionLost())
        for source in self.sources:
            source.robbed = source.robbed or len(self.stored(source)) < source.acknowledged

    def stored(self, source: Source) -> list[bytes]:
        return [line for line in self.disk.lines if line.startswith(b"%d:" % source.number)]

    @rule(
        chosen=CHOSEN,
        count=st.integers(1, 7),
        share=SHARE,
        stage=st.integers(0, 4),
        what=st.sampled_from(BREAKS),
        other=CHOSEN,
        healed=st.booleans(),
    )
    def breaks(
        self,
        chosen: int,
        count: int,
        share: float,
        stage: int,
        what: str,
        other: int,
        healed: bool,
    ) -> None:
        """Lines are on their way, as far as `stage`, when something breaks."""
        sender = self.sender(chosen)
        self.send(sender, count)
        if stage > 0:
            self.arrive(sender, share)
        if stage > 1:
            self.server.commit(told=stage > 2)
        if stage > 3:
            self.receive(sender, share)
        self.happen(sender, what, self.sender(other))
        if healed:
            for each in (self.sender(chosen), self.sender(other)):
                self.settle(each)

    @rule(chosen=CHOSEN, share=SHARE, stage=st.integers(0, 4), count=st.integers(1, 7))
    def goes(self, chosen: int, share: float, stage: int, count: int) -> None:
        """One step only, whatever comes next."""
        sender = self.sender(chosen)
        if stage == 0:
            self.send(sender, count)
        elif stage == 1:
            self.arrive(sender, share)
        elif stage == 2:
            self.server.commit(told=share == 1)
        elif stage == 3:
            self.receive(sender, share)
        else:
            sender.clock.advance(LATER)

    def happen(self, sender: Sender, what: str, other: Sender) -> None:
        """Something breaks."""
        if what in ("cut", "half-open"):
            for link in sender.links[-1:]:
                link.lose(ConnectionLost(), noticed=what == "cut")
            if what == "half-open":
                # As if another process served the next, behind which the older's lines come.
                self.server.store.holders.clear()
                sender.clock.advance(LATER)
                for link in sender.links[-1:]:
                    link.moveUp(1.0)
                self.server.commit(told=False)
                self.arrive(sender)
                self.server.commit()
        elif what == "rival" and len(self.senders) < MOST:
            self.rival()
            self.settle(self.senders[-1])
        elif what == "other":
            self.settle(other)
        elif what == "rerun":
            self.rerun(sender)
        elif what == "kill":
            self.started(self.disk)
        elif what in ("full", "unknown"):
            problem = StoreError("no room", retry=True, certain=what == "full")
            self.server.engine.problem = problem
            self.arrive(sender, 0.5)
            self.server.commit(told=False)
            # What is behind it finds room, before anybody is told that there was none.
            self.server.engine.problem = None
            self.arrive(sender)
            self.server.commit(first=True)
            self.free()
        elif what == "copy":
            self.copies.append(deepcopy(self.disk))
        elif what == "restore" and self.copies:
            self.started(deepcopy(self.copies[-1]))
        elif what == "empty":
            self.started(Disk())

    def free(self) -> None:
        self.server.engine.problem = None
        self.server.reactor.advance(LATER)

    @invariant()
    def once(self) -> None:
        """Each line is stored once and in order, and those acknowledged are stored."""
        assert not self.disk.wrong
        for source in self.sources:
            own = self.stored(source)
            assert own == source.lines[: len(own)]
            assert source.robbed or len(own) >= source.acknowledged

    def teardown(self) -> None:
        """In the end one sender is left at most, and all its lines are stored and acknowledged."""
        self.free()
        for sender in self.senders * 3:
            self.settle(sender)
        for sender in self.senders:
            self.receive(sender)
        self.once()
        alive = [sender for sender in self.senders if sender.problem is None]
        assert len(alive) <= 1
        for sender in alive:
            assert not sender.source.robbed
            assert sender.outstanding == 0
            assert self.disk.lines == sender.knows
            assert sender.source.acknowledged == len(sender.source.lines)
        self.server.kill()


Sessions.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSessions = Sessions.TestCase
