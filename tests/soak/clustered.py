"""One round: two servers on one stream of three nodes, under load, while something breaks."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from struct import unpack_from
from threading import Event, Thread
from time import monotonic, sleep
from urllib.request import urlopen

import nats

from sockservice.store.nats.cluster import Cluster, Node
from sockservice.store.nats.place import Place, parsed
from sockservice.store.nats.reading import StreamReader
from sockservice.store.reader import Query
from tests.conftest import SCRIPTS, Child, Children
from tests.soak.disks import Disk
from tests.soak.senders import Address

#: Seconds after which a thing that was to happen has not happened: an outage and more.
PATIENCE = 90.0
#: Lines that a sender has on the way.
WINDOW = 20

Fault = Callable[[Cluster, "Instance", str, Random], None]


class Instance(Child):
    """A server that stores in a stream."""

    def __init__(self, children: Children, url: str) -> None:
        super().__init__(
            children.start(
                *(str(SCRIPTS / "twistd"), "-n", "--pidfile=", "sockservice", "--store", url),
                *("--listen", "ack@tcp:0:interface=127.0.0.1"),
                *("--listen", "session@tcp:0:interface=127.0.0.1"),
            )
        )
        self.lines = self._listening("ack")
        self.sessions = self._listening("session")

    def _listening(self, protocol: str) -> Address:
        found = self.until(rb"%s listening on tcp:([0-9.]+):([0-9]+)\n" % protocol.encode())
        return found[1].decode(), int(found[2])


class Load(Thread):
    """Sends numbered lines, to one instance or another, and remembers what was acknowledged."""

    def __init__(self, name: str, addresses: list[Address], seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._addresses = addresses
        self._chance = Random(seed)
        self._ending = Event()
        self._next = 0
        self.acknowledged: list[int] = []
        self.replies: Counter[bytes] = Counter()
        self.opens = 0
        self.problem: Exception | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                with (
                    suppress(OSError, EOFError),
                    socket.create_connection(self._chance.choice(self._addresses)) as peer,
                ):
                    peer.settimeout(PATIENCE)
                    self.opens += 1
                    self._converse(peer)
                self._ending.wait(0.05)
        except Exception as problem:
            self.problem = problem

    def stop(self) -> None:
        """Send no more; what is on the way is answered."""
        self._ending.set()
        self.join(2 * PATIENCE)
        assert not self.is_alive(), f"{self.name} waits for a reply"
        if self.problem is not None:
            raise self.problem

    def _converse(self, peer: socket.socket) -> None:
        with peer.makefile("rb") as replies:
            self._exchange(peer, lambda: self._reply(replies.readline()))

    def _reply(self, line: bytes) -> bytes:
        if not line.endswith(b"\n"):
            raise EOFError
        self.replies[line[:-1]] += 1
        return line[:-1]

    def _exchange(self, peer: socket.socket, reply: Callable[[], bytes]) -> None:
        """Send lines with new numbers; those that were refused are never sent again."""
        # Now and then to another instance.
        for _ in range(self._chance.randrange(5, 50)):
            if self._ending.is_set():
                return
            numbers = range(self._next, self._next + WINDOW)
            self._next += WINDOW
            peer.sendall(b"".join(self.line(number) + b"\n" for number in numbers))
            for number in numbers:
                if reply() == b"ok":
                    self.acknowledged.append(number)

    def line(self, number: int) -> bytes:
        return b"%s %d " % (self.name.encode(), number) + b"\xff\0x" * (number % 30)


class Session(Load):
    """Sends the lines of a session: goes on where the server says that it is."""

    def _exchange(self, peer: socket.socket, reply: Callable[[], bytes]) -> None:
        peer.sendall(b"session/1 %s\n" % self.name.encode())
        opened = reply()
        if not opened.startswith(b"session/1 "):
            assert not opened.startswith(b"error session"), opened
            return
        position = int(opened.split()[2].removeprefix(b"position="))
        known = len(self.acknowledged)
        assert position >= known, f"{self.name} is at {position}, {known} were acknowledged"
        self.acknowledged = [*range(position)]
        self._next = position
        super()._exchange(peer, reply)


def leader(cluster: Cluster, stream: str) -> str:
    """Give the name of the node that leads a stream."""
    for node in cluster.nodes:
        with suppress(OSError, ValueError):
            with urlopen(f"{node.monitor}/jsz?streams=1&accounts=1", timeout=2) as answer:
                found = json.load(answer)
            for account in found.get("account_details", ()):
                for each in account.get("stream_detail", ()):
                    if each["name"] == stream and each.get("cluster", {}).get("leader"):
                        return str(each["cluster"]["leader"])
    return cluster.nodes[0].name


def caughtUp(cluster: Cluster) -> None:
    """Wait until all nodes serve, and have all that the others have."""
    until = monotonic() + PATIENCE
    while not all(node.ready() for node in cluster.nodes):
        assert monotonic() < until, [node.name for node in cluster.nodes if not node.ready()]
        sleep(0.1)


def _led(cluster: Cluster, stream: str, *, leads: bool) -> Node:
    name = leader(cluster, stream)
    return next(node for node in cluster.nodes if (node.name == name) == leads)


def killLeader(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Kill the node that leads the stream."""
    node = _led(cluster, stream, leads=True)
    node.kill()
    sleep(chance.uniform(0, 1))
    node.start()


def killFollower(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Kill a node that does not lead the stream."""
    node = _led(cluster, stream, leads=False)
    node.kill()
    sleep(chance.uniform(0, 1))
    node.start()


def freeze(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Have a node stand still."""
    node = _led(cluster, stream, leads=chance.random() < 0.7)
    node.kill(signal.SIGSTOP)
    sleep(chance.uniform(1, 8))
    node.kill(signal.SIGCONT)


def wipe(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Take away all that a node has stored."""
    node = _led(cluster, stream, leads=chance.random() < 0.5)
    node.kill()
    for each in (node.folder / "data").iterdir():
        shutil.rmtree(each)
    node.start()


def restart(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Kill all nodes, a majority for longer."""
    for node in cluster.nodes:
        node.kill()
    cluster.nodes[0].start()
    sleep(chance.uniform(0, 3))
    for node in cluster.nodes[1:]:
        node.start()


def fill(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Leave a node no room on its disk, which has to be one of its own."""
    node = chance.choice(cluster.nodes)
    data = node.folder / "data"
    assert os.path.ismount(data.resolve()), f"{data} is on the disk of others"
    ballast = data / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as full:
        while True:
            full.write(bytes(1 << 16))
    sleep(chance.uniform(1, 5))
    ballast.unlink()
    # It does not recover by itself.
    node.kill()
    node.start()


def onDisks(folder: Path, opened: ExitStack) -> list[Disk]:
    """Make a disk for what each of three nodes stores; needs root."""
    disks = []
    for number in range(1, 4):
        place = folder / f"n{number}"
        place.mkdir(parents=True)
        disk = Disk(place, 512)
        if problem := disk.make():
            raise OSError(f"no disk for a node: {problem}")
        opened.callback(disk.unmount)
        (place / "data").symlink_to(disk.folder)
        disks.append(disk)
    return disks


def powerOff(disks: list[Disk], cluster: Cluster) -> None:
    """Cut the power of all nodes in one moment, and give it back."""
    for node in cluster.nodes:
        # No one goes on while another has none any more.
        node.kill(signal.SIGSTOP)
    for disk in disks:
        disk.powerOff()
    for node in cluster.nodes:
        node.kill()
    for disk in disks:
        disk.unmount()
        problem = disk.mount()
        assert not problem, problem
    for node in cluster.nodes:
        node.start()


def separated(folder: Path, opened: ExitStack) -> Cluster:
    """Make nodes in network namespaces of their own; needs root, and a namespace for all this.

    That is one of networks and mounts, as `unshare --net --mount` makes it.
    """

    def do(*words: str) -> None:
        subprocess.run(words, check=True)

    do("ip", "link", "set", "lo", "up")
    do("mkdir", "-p", "/run/netns")
    do("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for number in range(1, 4):
        inside = ("ip", "-n", f"n{number}")
        do("ip", "netns", "add", f"n{number}")
        opened.callback(do, "ip", "netns", "delete", f"n{number}")
        do(
            "ip",
            "link",
            "add",
            f"to{number}",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            f"n{number}",
        )
        do("ip", "address", "add", f"10.55.{number}.1/24", "dev", f"to{number}")
        do("ip", "link", "set", f"to{number}", "up")
        do(*inside, "address", "add", f"10.55.{number}.2/24", "dev", "eth0")
        do(*inside, "link", "set", "lo", "up")
        do(*inside, "link", "set", "eth0", "up")
        do(*inside, "route", "add", "default", "via", f"10.55.{number}.1")
    return Cluster(
        folder,
        space="2G",
        hosts=[f"10.55.{number}.2" for number in range(1, 4)],
        within=[("ip", "netns", "exec", f"n{number}") for number in range(1, 4)],
    )


def outage(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Have a majority gone for longer than a server waits for it."""
    gone = chance.sample(cluster.nodes, 2)
    for node in gone:
        node.kill()
    sleep(chance.uniform(35, 70))
    for node in gone:
        node.start()


def _cut(numbers: list[int], seconds: float) -> None:
    for number in numbers:
        subprocess.run(["ip", "link", "set", f"to{number}", "down"], check=True)
    sleep(seconds)
    for number in numbers:
        subprocess.run(["ip", "link", "set", f"to{number}", "up"], check=True)


def partition(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Cut the node that leads the stream, or another, off from all others and the servers."""
    node = _led(cluster, stream, leads=chance.random() < 0.5)
    _cut([cluster.nodes.index(node) + 1], chance.uniform(1, 15))


def partitions(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
    """Cut two nodes off, from each other as well: there is no majority."""
    _cut(chance.sample(range(1, 4), 2), chance.uniform(1, 15))


FAULTS: dict[str, Fault] = {
    "leader": killLeader,
    "follower": killFollower,
    "freeze": freeze,
    "wipe": wipe,
    "restart": restart,
    "outage": outage,
}


def ofRoot(disks: list[Disk]) -> dict[str, Fault]:
    """Give what can be done to nodes with networks and disks of their own."""

    def power(cluster: Cluster, _: Instance, stream: str, chance: Random) -> None:
        powerOff(disks, cluster)

    return {"fill": fill, "partition": partition, "partitions": partitions, "power": power}


def clustered(
    children: Children,
    cluster: Cluster,
    stream: str,
    faults: list[Fault],
    chance: Random,
    senders: int = 3,
) -> tuple[int, int]:
    """Break something, one after the other, under load; compare what is stored.

    Gives how many lines were acknowledged, and how many are stored.
    """
    url = cluster.url(stream, "create&max_bytes=200M")
    instances = [Instance(children, url) for _ in range(2)]
    kinds = {Load: [i.lines for i in instances], Session: [i.sessions for i in instances]}
    loads = [
        kind(f"{kind.__name__.lower()}{number}", addresses, chance.randrange(1 << 30))
        for kind, addresses in kinds.items()
        for number in range(senders)
    ]
    for load in loads:
        load.start()
    for fault in faults:
        _moved(loads)
        fault(cluster, chance.choice(instances), stream, chance)
        _moved(loads)
        caughtUp(cluster)
    for load in loads:
        load.stop()
    for instance in instances:
        instance.process.terminate()
        status, output = instance.end()
        assert status == 0, output
    return compared(parsed(url), loads)


def _moved(loads: list[Load]) -> None:
    """Wait until lines of every sender are acknowledged, with whatever is broken."""
    before = [len(load.acknowledged) for load in loads]
    until = monotonic() + PATIENCE
    while still := [
        load.name
        for load, count in zip(loads, before, strict=True)
        if len(load.acknowledged) <= count
    ]:
        for load in loads:
            if load.problem is not None:
                raise load.problem
        assert monotonic() < until, f"nothing is acknowledged to {still}"
        sleep(0.05)


def read(place: Place) -> list[bytes]:
    """Give the lines that a stream holds."""
    found: list[bytes] = []
    after = 0
    with closing(StreamReader(place)) as reader:
        while True:
            rows, last = reader.page(Query(), after)
            found += [line for _, line in rows]
            if last == after:
                return found
            after = last


async def plainly(place: Place) -> list[bytes]:
    """Give the lines that a stream holds, with a client of NATS and the description alone."""
    client = await nats.connect([f"nats://{node}" for node in place.nodes])
    try:
        stream = client.jetstream()
        count = (await stream.stream_info(place.stream)).state.messages
        messages = await stream.subscribe(f"{place.stream}.>", ordered_consumer=True)
        found: list[bytes] = []
        for _ in range(count):
            payload, at = (await messages.next_msg(PATIENCE)).data, 0
            while at < len(payload):
                _, peer, listener, lines = unpack_from("!qIII", payload, at + 1)
                at += 21 + peer + listener
                lengths = unpack_from(f"!{lines}I", payload, at)
                at += 4 * lines
                for length in lengths:
                    found.append(payload[at : at + length])
                    at += length
        return found
    finally:
        await client.close()


def compared(place: Place, loads: list[Load]) -> tuple[int, int]:
    """See that all that was acknowledged is stored, byte for byte, in order, and nothing twice."""
    stored: defaultdict[str, list[bytes]] = defaultdict(list)
    count = 0
    there = read(place)
    assert asyncio.run(plainly(place)) == there, "a plain client reads other lines"
    for line in there:
        stored[line.split(b" ")[0].decode()].append(line)
        count += 1
    for load in loads:
        kept = stored[load.name]
        numbers = [int(line.split(b" ")[1]) for line in kept]
        assert kept == [load.line(number) for number in numbers], f"{load.name}: other bytes"
        assert numbers == sorted(set(numbers)), f"{load.name}: twice, or out of order"
        lost = set(load.acknowledged) - set(numbers)
        assert not lost, f"{load.name}: {len(lost)} acknowledged lines are lost"
        if isinstance(load, Session):
            assert numbers == [*range(len(numbers))], f"{load.name}: lines are missing"
    return sum(len(load.acknowledged) for load in loads), count
