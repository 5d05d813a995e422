"""One round each: kill the server, or cut its disk's power, under load, and compare."""

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import sleep

from tests.conftest import SCRIPTS, Child, Children
from tests.soak.disks import Disk
from tests.soak.senders import OK, PATIENCE, Address, DatagramSender, Sender, compare, latest


def freeze(child: Child) -> None:
    """Let it do nothing more, once the calls it is in are over.

    A power failure is one moment for all there is; cutting off a disk is not: a
    sync under way meanwhile may succeed though nothing is written (Linux 6.18; a
    loop of pwrite and fdatasync loses its last write in 7 of 40 rounds).
    """
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED | os.WNOWAIT)


class Server(Child):
    """A real server with a store, that acknowledges lines over TCP and datagrams over UDP."""

    def __init__(
        self,
        children: Children,
        store: Path,
        tracer: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(
            children.start(
                *(*tracer, str(SCRIPTS / "twistd")),
                *("-n", "--pidfile=", "sockservice", "--store", f"sqlite:{store}"),
                *("--listen", "ack@tcp:0:interface=127.0.0.1"),
                *("--listen", "ack@udp:0:interface=127.0.0.1"),
                *options,
            )
        )
        self.lines = self._listening("tcp")
        self.datagrams = self._listening("udp")

    def _listening(self, kind: str) -> Address:
        found = self.until(rb"ack listening on %s:([0-9.]+):([0-9]+)\n" % kind.encode())
        return found[1].decode(), int(found[2])

    def senders(self, windows: list[int]) -> list[Sender]:
        """Start senders: of lines, each with its window, and of datagrams."""
        made = [Sender(f"lines{at}", self.lines, window) for at, window in enumerate(windows)]
        made.append(DatagramSender("datagrams", self.datagrams))
        for sender in made:
            sender.start()
        return made

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self.process.kill()
        self.process.wait()


#: Most seconds of load in a round.
LOAD = 0.3
WINDOWS = [1, 1, 30, 300]
#: So few that the log is seldom checkpointed, which would sync what no commit has synced.
FEW = [1, 1]


def crash(children: Children, store: Path, chance: Random) -> tuple[int, int]:
    """Kill the server under load, start it again and compare.

    Gives how many lines were acknowledged, and how many are stored.
    """
    server = Server(children, store)
    after = latest(store)
    senders = server.senders(WINDOWS)
    for sender in senders:
        sender.until(OK)
    sleep(chance.uniform(0, LOAD))  # the random moment
    server.kill()
    for sender in senders:
        sender.stop()
    again = Server(children, store)
    try:
        _, stored = counted = compare(store, after, senders)
        # It goes on where it was.
        one = Sender("one", again.lines)
        one.start()
        one.until(OK)
        one.stop()
        assert latest(store) > after + stored
    finally:
        again.kill()
    return counted


def parent(children: Children, store: Path, chance: Random) -> tuple[int, int]:
    """Kill the process that stores for two workers under load, start again and compare.

    Gives how many lines were acknowledged, and how many are stored.
    """
    server = Server(children, store, options=("--workers", "2"))
    server.until(rb"2 workers are ready")
    after = latest(store)
    senders = server.senders(WINDOWS)
    for sender in senders:
        sender.until(OK)
    sleep(chance.uniform(0, LOAD))  # the random moment
    server.kill()
    for sender in senders[:-1]:
        # What the workers say to the end is said as well.
        sender.join(PATIENCE)
    for sender in senders:
        sender.stop()
    Server(children, store).kill()
    return compare(store, after, senders)


def workers(children: Children, store: Path, chance: Random, kills: int = 3) -> tuple[int, int]:
    """Kill random workers of a server under load, end it well, and compare.

    Gives how many lines were acknowledged, and how many are stored.
    """
    server = Server(children, store, options=("--workers", "2"))
    server.until(rb"2 workers are ready")
    after = latest(store)
    senders: list[Sender] = []
    for _ in range(kills):
        fresh = server.senders(WINDOWS)
        for sender in fresh[:-1]:  # a datagram may have been with the worker that died
            sender.until(OK)
        senders += fresh
        sleep(chance.uniform(0, LOAD))  # the random moment
        pid = server.process.pid
        alive = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if alive:
            os.kill(int(chance.choice(alive)), signal.SIGKILL)
    server.process.terminate()
    assert server.end() == (0, b"")
    for sender in senders:
        sender.stop()
    Server(children, store).kill()
    return compare(store, after, senders)


def power(children: Children, disk: Disk, chance: Random) -> tuple[int, int]:
    """Cut the power of the disk under load, and compare what is on it then.

    Gives how many lines were acknowledged, and how many are stored.
    """
    store = disk.folder / "lines.db"
    with ExitStack() as mounted:
        mounted.callback(disk.unmount)
        server = Server(children, store)
        mounted.callback(server.kill)
        after = latest(store)
        senders = server.senders(FEW)
        for sender in senders:
            sender.until(OK)
        sleep(chance.uniform(LOAD, 2 * LOAD))  # the random moment
        freeze(server)
        disk.powerOff()
        server.kill()
        for sender in senders:
            sender.stop()
    problem = disk.mount()
    assert not problem, problem
    return compare(store, after, senders)
