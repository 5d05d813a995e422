"""Loads: what peers do to a server that they do not mean well. Each is a process of its own."""

import multiprocessing
import os
import random
import selectors
import socket
import ssl
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any

from tests.soak.senders import PATIENCE, Address

#: Spawned, not forked: the process that measures has threads.
_processes = multiprocessing.get_context("spawn")

#: What a load did, in numbers.
Done = Counter[str]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST
_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7)


class Control:
    """How a load and who started it tell each other when it is on and when it is over."""

    def __init__(self) -> None:
        self._up = _processes.Event()
        self._over = _processes.Event()

    def up(self) -> None:
        """Say that the load is on."""
        self._up.set()

    def over(self, seconds: float = 0.0) -> bool:
        """Whether it is to end; within `seconds` it may be told so."""
        return self._over.wait(seconds) if seconds else self._over.is_set()

    def isUp(self, seconds: float) -> bool:
        """Wait until the load is on; say whether it is."""
        return self._up.wait(seconds)

    def end(self) -> None:
        """Say that it is to end."""
        self._over.set()


class Load:
    """A load in a process of its own: `do(control, *arguments)`, which gives what it did.

    It is nicer than the server (nice(2)): peers elsewhere take no processor from it.
    """

    def __init__(self, do: Callable[..., Done], *arguments: Any) -> None:
        self.control = Control()
        self._come, told = _processes.Pipe(duplex=False)
        self.process = _processes.Process(
            target=_loading, args=(do, self.control, told, arguments), daemon=True
        )
        self.process.start()
        told.close()

    def begun(self, seconds: float = 60.0) -> None:
        """Wait until the load is on."""
        deadline = monotonic() + seconds
        while not self.control.isUp(0.1):
            assert self.process.is_alive(), self.finish()
            assert monotonic() < deadline, "the load does not get on"

    def finish(self, seconds: float = 120.0) -> Done:
        """End it; give what it did.

        :raises AssertionError: The server did not do right by it.
        """
        self.control.end()
        assert self._come.poll(seconds), "the load does not end"
        done: Done | str = self._come.recv()
        self.process.join(PATIENCE)
        assert isinstance(done, Counter), done
        return done


def _loading(do: Callable[..., Done], control: Control, told: Any, arguments: Any) -> None:
    os.nice(10)
    try:
        told.send(do(control, *arguments))
    except Exception as problem:
        told.send(f"{do.__name__}: {type(problem).__name__}: {problem}")


def _source(number: int) -> str:
    """Give one of the many addresses that this machine has: each has ports of its own."""
    return f"127.0.{1 + number // 250 % 250}.{1 + number % 250}"


def _connected(
    address: Address, source: str = "127.0.0.1", receiving: int | None = None
) -> socket.socket:
    """Connect from a source address, with a receive buffer of `receiving` bytes."""
    made = socket.socket()
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    if receiving is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiving)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receiving)
    made.bind((source, 0))
    made.connect(address)
    return made


def _rest(peer: socket.socket) -> bytes:
    """Give all that comes up to the end, in whatever way it ends."""
    pieces = []
    with suppress(ConnectionError):
        while piece := peer.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


# Lines of several lengths, over and over.
_BLOCK = b"".join(b"x" * length + b"\n" for length in (0, 1, 63, 5, 200, 40, 0, 1000)) * 16


class _Pouring:
    """A peer that sends lines as long as they are taken, and reads nothing."""

    def __init__(self, address: Address) -> None:
        self.socket = _connected(address, receiving=4096)
        self.socket.setblocking(False)
        self.lines = 0
        self._at = 0

    def pour(self) -> None:
        try:
            sent = self.socket.send(_BLOCK[self._at :])
        except BlockingIOError:
            return
        self.lines += _BLOCK.count(b"\n", self._at, self._at + sent)
        self._at = (self._at + sent) % len(_BLOCK)

    def end(self) -> tuple[int, int]:
        """Read at last; give how many replies are due, and how many came."""
        torn = self._at > 0 and _BLOCK[self._at - 1] != 10
        self.socket.settimeout(PATIENCE)
        with self.socket:
            return self.lines + torn, _rest(self.socket).count(b"\n")


def unread(control: Control, addresses: list[Address], peers: int) -> Done:
    """Send lines and never read; in the end read, and count."""
    pouring = [_Pouring(addresses[number % len(addresses)]) for number in range(peers)]
    selector = selectors.DefaultSelector()
    for peer in pouring:
        selector.register(peer.socket, selectors.EVENT_WRITE, peer)
    control.up()
    while not control.over():
        for key, _ in selector.select(0.1):
            key.data.pour()
    selector.close()
    # All at once, for a line that was begun has to end in time.
    for peer in pouring:
        peer.socket.shutdown(socket.SHUT_WR)
    done = Done(peers=peers)
    for peer in pouring:
        due, came = peer.end()
        assert due == came, f"{due} replies due to a peer that had not read, {came} came"
        done["lines"] += came
    return done


def slow(control: Control, address: Address, peers: int, timeout: int) -> Done:
    """Send a byte a second: half of the peers end a line now and then, half never do."""
    whole = [_connected(address) for _ in range((peers + 1) // 2)]
    endless = [_connected(address) for _ in range(peers // 2)]
    control.up()
    seconds = 0
    # Long enough for all that never end a line to be told.
    while not control.over() or seconds < timeout + 3:
        for peer in whole:
            peer.send(b"\n" if seconds % 2 else b"x")
        for peer in endless:
            # Who has been told and does not close is reset in the end.
            with suppress(ConnectionError):
                peer.send(b"x")
        seconds += 1
        time.sleep(1)
    for peer in whole:
        if seconds % 2:
            peer.send(b"\n")
        peer.shutdown(socket.SHUT_WR)
    told = Counter(_rest(peer) for peer in whole)
    oks = (seconds + 1) // 2
    assert told == {b"ok\n" * oks: len(whole)}, f"told {told}, not {oks} times ok"
    told = Counter(_rest(peer) for peer in endless)
    refusal = b"error unfinished line for %d seconds\n" % timeout
    assert told == {refusal: len(endless)}, f"told {told}, not {refusal!r}"
    for peer in whole + endless:
        peer.close()
    return Done(peers=peers, lines=oks * len(whole) + len(endless), refused=len(endless))


def idle(control: Control, address: Address, peers: int, timeout: int) -> Done:
    """Connect and say nothing, until told to make room."""
    sockets = [_connected(address, _source(number)) for number in range(peers)]
    control.up()
    while not control.over(1.0):
        pass
    refusal = b"error idle for %d seconds\n" % timeout
    selector = selectors.DefaultSelector()
    for each in sockets:
        each.setblocking(False)
        selector.register(each, selectors.EVENT_READ)
    deadline = monotonic() + timeout + 30
    told: Counter[bytes] = Counter()
    while selector.get_map() and monotonic() < deadline:
        for key, _ in selector.select(0.1):
            assert isinstance(key.fileobj, socket.socket)
            with suppress(BlockingIOError):
                told[key.fileobj.recv(100)] += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
    assert told == {refusal: peers}, f"told {told}, not {refusal!r} to {peers}"
    return Done(peers=peers, refused=peers)


def storm(control: Control, address: Address, rate: int) -> Done:
    """Connect and close, well and ill, as often as can be or `rate` times a second."""
    done = Done()
    control.up()
    began = monotonic()
    while not control.over():
        if rate and done["connections"] >= (monotonic() - began) * rate:
            time.sleep(0.001)
            continue
        number = done["connections"]
        try:
            peer = _connected(address, _source(number))
        except TimeoutError:
            done["notAccepted"] += 1
            continue
        with peer:
            done["connections"] += 1
            match number % 4:
                case 1:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                case 2:
                    peer.sendall(b"whole\ntorn")
                case 3 if number % 100 == 3:
                    peer.sendall(b"x\n")
                    reply = peer.recv(100)
                    assert reply == b"ok\n", f"told {reply!r}"
                    done["lines"] += 1
    return done


def refused(control: Control, address: Address, places: int, peers: int) -> Done:
    """Take all places there are, then come again and again; who is refused does not close."""
    inside = [_connected(address, _source(number)) for number in range(places)]
    for peer in inside:
        peer.sendall(b"x\n")
        reply = peer.recv(100)
        assert reply == b"ok\n", f"told {reply!r}"
    done = Done(lines=places)
    held: deque[socket.socket] = deque()
    control.up()
    while not control.over():
        began = monotonic()
        peer = _connected(address, _source(done["refused"]))
        reply = peer.recv(100)
        assert reply.startswith(b"error busy: ") and reply.endswith(b"\n"), f"told {reply!r}"
        done["refused"] += 1
        done["ms the slowest"] = max(done["ms the slowest"], round((monotonic() - began) * 1000))
        held.append(peer)
        if len(held) > peers:
            held.popleft().close()
    assert done["ms the slowest"] < 2000, f"told after {done['ms the slowest']} ms"
    for peer in [*inside, *held]:
        peer.close()
    return done


def _hello() -> bytes:
    """Give the first bytes that a TLS client sends."""
    sent = ssl.MemoryBIO()
    client = _context().wrap_bio(ssl.MemoryBIO(), sent)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls(control: Control, address: Address, rate: int, threads: int = 8) -> Done:
    """Send garbage for TLS, halves of a ClientHello, and do whole handshakes."""
    hello, context = _hello(), _context()
    done = Done()
    problems: list[str] = []
    began = monotonic()

    def flood(first: int) -> None:
        chance = random.Random(first)
        number = first
        halves: deque[socket.socket] = deque()
        mine = 0
        while not control.over():
            if rate and mine * threads >= (monotonic() - began) * rate:
                time.sleep(0.001)
                continue
            mine += 1
            number += 1
            peer = _connected(address)
            match number % 3:
                case 0:
                    with peer, suppress(ConnectionError):
                        peer.sendall(chance.randbytes(300))
                        _rest(peer)
                    done["garbage"] += 1
                case 1:
                    peer.sendall(hello[: len(hello) // 2])
                    halves.append(peer)
                    if len(halves) > 100:
                        halves.popleft().close()
                    done["halves"] += 1
                case _:
                    with context.wrap_socket(peer) as secure:
                        secure.sendall(b"x\n")
                        reply = secure.recv(100)
                        assert reply == b"ok\n", f"told {reply!r}"
                    done["handshakes"] += 1
        for each in halves:
            each.close()

    def kept(first: int) -> None:
        try:
            flood(first)
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")

    running = [Thread(target=kept, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    control.up()
    for thread in running:
        thread.join()
    assert not problems, problems[0]
    return done


def _datagram(source: str, port: int, to: Address, data: bytes) -> bytes:
    """Make an IPv4 packet that holds a UDP datagram; without a checksum, which is allowed."""
    udp = struct.pack("!HHHH", port, to[1], 8 + len(data), 0) + data
    return (
        # The kernel fills in the length and the checksum; raw(7).
        struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0)
        + socket.inet_aton(source)
        + socket.inet_aton(to[0])
        + udp
    )


#: Ports whose datagrams meet with silence: echo, chargen, and for 0 the server's own.
SILENT = (7, 19, 0)


def forged(control: Control, to: Address, rate: int, size: int = 100) -> Done:
    """Send datagrams from addresses and ports that are others', those of loops among them.

    All sources are of 127.0.0.0/8: what is replied stays on this machine.
    """
    chance = random.Random(555)
    done = Done()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
    ):
        # A service that answers anything: it must not hear of this one.
        answering = _source(os.getpid())
        service.bind((answering, 7))
        service.setblocking(False)
        data = bytes(size)
        packets = []
        for number in range(4096):
            source = (
                f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
            )
            port = chance.randrange(1024, 65536)
            if silent := not number % 4:
                port = SILENT[number // 4 % len(SILENT)] or to[1]
                source = chance.choice((source, to[0], answering))
            packets.append((_datagram(source, port, to, data), silent))
        control.up()
        began = monotonic()
        while not control.over():
            if rate and done["datagrams"] >= (monotonic() - began) * rate:
                time.sleep(0.001)
                continue
            for packet, silent in packets[: min(rate // 100 or 1, 4096) if rate else 4096]:
                raw.sendto(packet, (to[0], 0))
                done["datagrams"] += 1
                done["loops"] += silent
        time.sleep(0.5)
        with suppress(BlockingIOError):
            service.recv(65536)
            raise AssertionError("a datagram from port 7 was replied to")
    return done


class _Negotiating:
    """A telnet client that asks and asks, and reads what it is told."""

    def __init__(self, address: Address, chance: random.Random) -> None:
        self.socket = _connected(address)
        # DO and WILL of all options, which are answered, DONT and WONT, which are not.
        options = [option for option in range(240) if option not in (6, 10)]
        asked = [(chance.choice((0xFB, 0xFD)), chance.choice(options)) for _ in range(4000)]
        said = [(chance.choice((0xFC, 0xFE)), chance.choice(options)) for _ in range(1000)]
        # To begin with, what shows a telnet client.
        mixed = [(0xFB, 31), *chance.sample(asked + said, 5000)]
        self.block = b"".join(bytes((255, *each)) for each in mixed) + b"line\r\n"
        self.due = 3 * (len(asked) + 1) + len(b"ok\r\n")
        self.at = self.blocks = self.got = 0

    def turn(self, events: int) -> None:
        with suppress(BlockingIOError):
            if events & selectors.EVENT_READ:
                self.got += len(self.socket.recv(65536))
            if events & selectors.EVENT_WRITE:
                self.at += self.socket.send(self.block[self.at :])
                if self.at == len(self.block):
                    self.at = 0
                    self.blocks += 1


def telnet(control: Control, address: Address, peers: int) -> Done:
    """Negotiate without end."""
    chance = random.Random(555)
    negotiating = [_Negotiating(address, chance) for _ in range(peers)]
    selector = selectors.DefaultSelector()
    for peer in negotiating:
        peer.socket.setblocking(False)
        selector.register(peer.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
    control.up()
    while not control.over():
        for key, events in selector.select(0.1):
            key.data.turn(events)
    selector.close()
    done = Done(peers=peers)
    for number, peer in enumerate(negotiating):
        rest = peer.block[peer.at :] if peer.at else b""
        peer.socket.settimeout(PATIENCE)
        replies: list[bytes] = []
        reading = Thread(target=lambda: replies.append(_rest(peer.socket)))  # noqa: B023
        reading.start()
        peer.socket.sendall(rest)
        peer.socket.shutdown(socket.SHUT_WR)
        reading.join()
        peer.socket.close()
        peer.blocks += bool(rest)
        got = peer.got + len(replies[0])
        assert got == peer.blocks * peer.due, (
            f"client {number}: {peer.blocks * peer.due} bytes of replies due, {got} came"
        )
        done["commands"] += peer.blocks * 5001
        done["lines"] += peer.blocks
    return done


def together(loads: Sequence[Load]) -> Done:
    """End several loads; give what they did together.

    :raises AssertionError: The server did not do right by one of them.
    """
    done = Done()
    problems = []
    for load in loads:
        load.control.end()
    for load in loads:
        try:
            done.update(load.finish())
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "; ".join(problems)
    return done
