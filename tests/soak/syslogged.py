"""rsyslog and syslog-ng, as docs/syslog.md configures them, to a server that is killed and filled.

What RELP acknowledges has to be stored: what rsyslog was told is read from the wire, where there
is no TLS. Plain syslog acknowledges nothing, so nothing counts as delivered there: what is lost
is only counted.
"""

import os
import re
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import NamedTuple

from tests.certificates import Identity
from tests.conftest import Child, Children
from tests.ports import reserved
from tests.soak.tapped import Tap

PAGE = Path(__file__).parents[2] / "docs" / "syslog.md"
#: Seconds without a new message after which what was to arrive has not.
PATIENCE = 120.0
#: The same where what is sent next may tell a sender that its connection was broken.
HUSH = 5.0
#: Messages that librelp sends before it has the first response.
WINDOW = 128
#: Messages that are written when all is over.
LAST = 100
#: Messages behind these, one at a time, while some have not come: librelp corks its connection
#: (tcp(7), TCP_CORK), and so hears with what it sends next that it was broken; and what plain
#: syslog has sent into a broken connection is lost, the last ones and maybe all before.
MORE = 20

RELOADED = 'module(load="omrelp")\n'
OPENSSL = 'module(load="omrelp" tls.tlslib="openssl")\n'


class Way(NamedTuple):
    """How messages come: to what kind of listener, by which block of the page, changed how."""

    listener: str
    block: str
    before: str = ""
    changed: tuple[str, str] = ("", "")
    module: str = ""

    @property
    def sender(self) -> str:
        """The program that sends."""
        return "syslog-ng" if self.block.startswith("d_") else "rsyslogd"

    @property
    def acknowledged(self) -> bool:
        """Whether the sender is told what is stored."""
        return self.listener.startswith("relp")

    @property
    def tapped(self) -> bool:
        """Whether it can be read on the wire what the sender was told."""
        return self.listener == "relp@tcp"

    @property
    def missing(self) -> str:
        """What it needs and is not installed, if anything."""
        if not executable(self.sender):
            return self.sender
        places = Path("/usr/lib").glob(f"*/rsyslog/{self.module}.so")
        return f"rsyslog's {self.module}" if self.module and not any(places) else ""

    @property
    def configured(self) -> str:
        """The block, found by its port or its name, and what it needs."""
        kind = "syslog-ng" if self.sender == "syslog-ng" else "rsyslog"
        [block] = [each for each in fenced(kind) if self.block in each]
        assert self.changed[0] in block
        if self.before and self.before not in block:
            block = self.before + block.replace(RELOADED, "")
        return block.replace(*self.changed) if self.changed[0] else block


def fenced(kind: str) -> list[str]:
    """Give the blocks of a kind on the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def executable(name: str) -> str | None:
    """Give where a daemon is, if it is anywhere."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")


WAYS = {
    "omrelp": Way("relp@tcp", 'port="2514"', module="omrelp"),
    "omrelp-tls": Way("relp@ssl", 'port="2515"', RELOADED, module="omrelp"),
    "omrelp-openssl": Way("relp@ssl", 'port="2515"', OPENSSL, module="omrelp"),
    "omfwd": Way("syslog@tcp", 'port="5514"'),
    "omfwd-lines": Way("syslog@tcp", 'port="5514"', "", ("octet-counted", "traditional")),
    "omfwd-tls": Way("syslog@ssl", 'port="6514"', module="lmnsd_gtls"),
    "omfwd-openssl": Way(
        "syslog@ssl", 'port="6514"', "", ('Driver="gtls"', 'Driver="ossl"'), "lmnsd_ossl"
    ),
    "syslog-ng": Way("syslog@tcp", "d_lines"),
    "syslog-ng-counted": Way("syslog@tcp", "d_counted"),
    "syslog-ng-tls": Way("syslog@ssl", "d_tls"),
}


class Came(NamedTuple):
    """What came of the messages of one way."""

    stored: int
    lost: int
    twice: int
    connections: int
    #: Of those that were written once all faults were over.
    after: int


class Collector:
    """The service, with a listener for each way, which may be killed and started again."""

    def __init__(
        self,
        children: Children,
        store: Path,
        ways: Iterable[str],
        authority: Identity,
        server: Identity,
    ) -> None:
        self._children = children
        self._store = store
        self._secured = f":{server.said}:caCerts={authority.certKey}"
        self._reserved = {way: reserved() for way in ways}
        self.ports = {way: port.getsockname()[1] for way, port in self._reserved.items()}
        self.start()

    def start(self) -> None:
        listeners = [
            f"--listen={WAYS[way].listener}:{port}:interface=127.0.0.1"
            + (self._secured if "ssl" in WAYS[way].listener else "")
            for way, port in self.ports.items()
        ]
        options = ["--store", f"sqlite:{self._store}", "--store-reserve", "0", *listeners]
        self.child = Child(
            self._children.start("twistd", "-n", "--pidfile=", "sockservice", *options)
        )
        for port in self.ports.values():
            self.child.until(rb"listening on \w+:127.0.0.1:%d\n" % port)

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self.child.process.kill()
        self.child.process.communicate()

    def stop(self) -> None:
        """Have it end in good order."""
        self.child.process.terminate()
        assert self.child.end() == (0, b"")
        for port in self._reserved.values():
            port.close()

    @property
    def latest(self) -> int:
        """How many messages are stored."""
        with closing(sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)) as base:
            return int(base.execute("SELECT ifnull(max(id), 0) FROM lines").fetchone()[0])

    def stored(self, way: str) -> set[bytes]:
        """Give the messages that came in a way."""
        with closing(sqlite3.connect(self._store)) as base:
            listener = f"%:{self.ports[way]}"
            rows = base.execute("SELECT line FROM lines WHERE listener LIKE ?", (listener,))
            return {line for (line,) in rows}

    def ended(self, way: str, count: int) -> bool:
        """Whether the last of the messages has come."""
        last = text(count - 1)
        return any(message.rstrip().endswith(last) for message in self.stored(way))

    def came(self, way: str, count: int, over: int) -> Came:
        """Compare what is stored with what was sent: `count` messages, and more behind them.

        The faults were over when `over` of them were written.
        """
        with closing(sqlite3.connect(self._store)) as base:
            rows = base.execute(
                "SELECT line, peer FROM lines WHERE listener LIKE ?", (f"%:{self.ports[way]}",)
            ).fetchall()
        found: Counter[int] = Counter()
        after = 0
        for line, _ in rows:
            number = int(line.rpartition(b" message ")[2].partition(b" ")[0])
            assert line.startswith(b"<") and line.endswith(text(number)), f"{way}: not sent: {line}"
            after += number >= over
            if number < count:
                found[number] += 1
        return Came(
            stored=len(found),
            lost=count - len(found),
            twice=found.total() - len(found),
            connections=len({peer for _, peer in rows}),
            after=after,
        )


def text(number: int) -> bytes:
    """Give the text of a message; lengths differ."""
    return b" message %d of the application%s" % (number, b" x" * (number % 40))


def sender(
    children: Children,
    way: str,
    port: int,
    log: Path,
    authority: Identity,
    client: Identity,
) -> subprocess.Popen[bytes]:
    """Start what sends the lines of a log file on."""
    folder = children.folder / way
    folder.mkdir()
    configured = re.sub(r'port(="|\()\d+', rf"port\g<1>{port}", WAYS[way].configured)
    for said, here in {
        "/etc/ssl/logs/ca.crt": str(authority.certKey),
        "/etc/ssl/logs/client.crt": str(client.certKey),
        "/etc/ssl/logs/client.key": str(client.privateKey),
        "logs.example.org": "localhost",
        # Sooner than the page has it.
        'Interval="5"': 'Interval="1"',
    }.items():
        configured = configured.replace(said, here)
    file = folder / "configured"
    if WAYS[way].sender == "syslog-ng":
        [destination] = re.findall(r"destination (\w+)", configured)
        file.write_text(
            "@version: 3.35\noptions { time-reopen(1); };\n"
            f'source s {{ file("{log}" flags(no-parse) follow-freq(0.1)); }};\n{configured}\n'
            f"log {{ source(s); destination({destination}); flags(flow-control); }};\n"
        )
        given = ["-F", "--no-caps", "-f", str(file), "-R", "persist", "-c", "control"]
    else:
        file.write_text(
            f'global(workDirectory="{folder}")\nmodule(load="imfile")\n'
            f'input(type="imfile" file="{log}" tag="app:")\n{configured}\n'
        )
        given = ["-n", "-f", str(file), "-i", str(folder / "pid")]
    found = executable(WAYS[way].sender)
    assert found is not None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return children.start(found, *given, cwd=folder, **quiet)


def identities(folder: Path) -> tuple[Identity, Identity, Identity]:
    """Make certificates of an authority, the server and the senders."""
    authority = Identity(folder, "authority")
    server = Identity(folder, "server", authority)
    return authority, server, Identity(folder, "client", authority, hosts=())


def settled(collector: Collector, come: Callable[[int], bool], patience: float = PATIENCE) -> bool:
    """Wait until `come` says so of the number of messages; give up when no more of them come."""
    before, since = -1, monotonic()
    while not come(now := collector.latest):
        if now != before:
            before, since = now, monotonic()
        elif monotonic() - since > patience:
            return False
        sleep(0.1)
    return True


def syslogged(
    children: Children,
    store: Path,
    ways: Iterable[str],
    identities: tuple[Identity, Identity, Identity],
    chance: Random,
    count: int,
    kills: int,
    fills: int,
) -> dict[str, Came]:
    """Have `count` messages sent in each of the ways; kill and fill at random; compare.

    `store` is on a file system of its own if it is to be filled. `identities` are of an
    authority, the server and the senders.
    """
    authority, server, client = identities
    log = children.folder / "app.log"
    log.touch()
    collector = Collector(children, store, ways, authority, server)
    taps = {way: Tap(port) for way, port in collector.ports.items() if WAYS[way].tapped}
    for way, port in collector.ports.items():
        if tap := taps.get(way):
            tap.start()
        sender(children, way, tap.port if tap else port, log, authority, client)
    faults = ["kill"] * kills + ["fill"] * fills
    chance.shuffle(faults)
    written, part = 0, (count - LAST) // (len(faults) or 1)
    ballast = store.parent / "ballast"
    for fault in faults:
        before = collector.latest
        if fault == "fill":
            _fill(ballast)
        _write(log, range(written, written + part))
        written += part
        if fault == "fill":
            collector.child.until(rb"cannot be stored: disk full", patience=PATIENCE)
            sleep(chance.uniform(0, 1))
        else:
            due = before + chance.randrange(part * len(collector.ports) * 3 // 4)
            settled(collector, lambda now: now > due, HUSH)  # noqa: B023
        if fault == "kill" or chance.random() < 0.3:
            collector.kill()
            sleep(chance.uniform(0, 0.5))
        ballast.unlink(missing_ok=True)
        if collector.child.process.poll() is not None:
            collector.start()
    _write(log, range(written, count))
    told = {way for way in ways if WAYS[way].acknowledged}
    untold = {*ways} - told
    least = len(told) * count
    last = count

    def come(now: int) -> bool:
        return (
            now >= least
            and all(collector.ended(way, last) for way in untold)
            and not any(collector.came(way, count, written).lost for way in told)
        )

    while not settled(collector, come, HUSH) and last < count + MORE:
        _write(log, range(last, last + 1))
        last += 1
    settled(collector, come)
    collector.stop()
    done = {way: collector.came(way, count, written) for way in ways}
    for way, tap in taps.items():
        tap.close()
        missing = tap.acknowledged - collector.stored(way)
        assert not missing, f"{way}: {len(missing)} acknowledged messages are not stored"
    for way in told:
        assert done[way].twice <= WINDOW * done[way].connections, f"{way}: {done[way]}"
    return done


def _write(log: Path, numbers: range) -> None:
    with log.open("ab") as writer:
        writer.writelines(text(number)[1:] + b"\n" for number in numbers)


def _fill(ballast: Path) -> None:
    """Leave no room on a disk."""
    with ballast.open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(65536)):
            pass
