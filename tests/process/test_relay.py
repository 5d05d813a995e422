"""Two hops on real servers: what the first has stored is at the second once, whatever is killed."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Child, Children

#: Seconds in which something is relayed, about.
SOON = 0.5


def stored(store: Path) -> list[bytes]:
    with closing(sqlite3.connect(store)) as database:
        return [line for (line,) in database.execute("SELECT line FROM lines ORDER BY id")]


class Hop(Child):
    """A server with a store, always on the same socket."""

    def __init__(self, children: Children, name: str, protocol: str, *options: str) -> None:
        self.store = children.folder / f"{name}.db"
        self.path = children.folder / name
        super().__init__(
            children.start(
                *("twistd", "-n", "--pidfile=", "sockservice", "--store", f"sqlite:{self.store}"),
                *("--listen", f"{protocol}@unix:{self.path}", *options),
            )
        )
        self.until(rb" listening on unix:")

    def send(self, lines: list[bytes]) -> None:
        """Send lines, and see them acknowledged."""
        with closing(socket.socket(socket.AF_UNIX)) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(self.path))
            peer.sendall(b"".join(line + b"\n" for line in lines))
            replies = peer.makefile("rb")
            assert [replies.readline() for _ in lines] == [b"ok\n"] * len(lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def relay(children: Children, edge: Hop, centre: Path, *options: str) -> "subprocess.Popen[bytes]":
    return children.start(
        "sockservice", "relay", str(edge.store), f"unix:{centre}", "--session", "edge", *options
    )


def arrived(store: Path, count: int) -> None:
    """Wait until so many lines are there."""
    deadline = monotonic() + PATIENCE
    while not store.exists() or len(stored(store)) < count:
        assert monotonic() < deadline, "not relayed"
        sleep(0.02)


def ended(process: "subprocess.Popen[bytes]", number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said.decode()


def test_each_line_is_relayed_once_whatever_is_killed(children: Children) -> None:
    chance = Random(3)
    lines: list[bytes] = []
    edge, centre = Hop(children, "edge", "ack"), Hop(children, "centre", "session")
    relaying = relay(children, edge, centre.path, "--rate", "20000")
    for part in range(3):
        some = [b"%d %d" % (part, number) for number in range(4000)]
        edge.send(some)
        lines += some
        sleep(chance.uniform(0, SOON))  # the random moment
        for what in chance.sample(["edge", "centre", "relay"], chance.randint(1, 3)):
            if what == "edge":
                edge.kill()
                edge = Hop(children, "edge", "ack")
            elif what == "centre":
                centre.kill()
                centre = Hop(children, "centre", "session")
            else:
                relaying.kill()
                relaying.wait()
                relaying = relay(children, edge, centre.path, "--rate", "20000")
    arrived(centre.store, len(lines))
    status, said = ended(relaying, signal.SIGTERM)
    assert status == 143, said
    assert re.search(r"relayed \d+ lines: terminated\n$", said)
    assert stored(centre.store) == lines


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGHUP, 129, "hung up")],
)
def test_a_signal_ends_it_in_good_order(
    children: Children, number: signal.Signals, status: int, word: str
) -> None:
    edge, centre = Hop(children, "edge", "ack"), Hop(children, "centre", "session")
    edge.send([b"a", b"b"])
    relaying = relay(children, edge, centre.path, "--json", "--events")
    arrived(centre.store, 2)
    relaying.send_signal(number)
    output, said = relaying.communicate(timeout=PATIENCE)
    assert (relaying.returncode, said.decode()) == (status, f"relayed 2 lines: {word}\n")
    assert [json.loads(line)["line"] for line in stored(centre.store)] == ["a", "b"]
    opened, last = map(json.loads, output.splitlines())
    assert opened == {"event": "opened", "session": "edge", "new": True, "position": 0, "id": 0}
    assert last == {
        "event": "ended",
        "session": "edge",
        "acknowledged": 2,
        "unacknowledged": 0,
        "passed_over": 0,
        "removed": 0,
        "position": 2,
        "id": 2,
        "status": status,
        "why": word,
    }


def test_lines_that_are_gone_have_a_status_of_their_own(children: Children) -> None:
    edge, centre = Hop(children, "edge", "ack"), Hop(children, "centre", "session")
    edge.send([b"a"])
    relaying = relay(children, edge, centre.path)
    arrived(centre.store, 1)
    assert ended(relaying, signal.SIGTERM)[0] == 143
    edge.send([b"b", b"c", b"d"])
    edge.process.terminate()
    edge.end()
    with closing(sqlite3.connect(edge.store)) as database:
        database.execute("DELETE FROM lines WHERE id <= 3")
        database.commit()
    relaying = relay(children, edge, centre.path)
    _, said = relaying.communicate(timeout=PATIENCE)
    assert (relaying.returncode, said.decode()) == (
        5,
        "session edge goes on behind id 1\n"
        f"relayed 0 lines: {edge.store}: 2 lines (ids 2 to 3) were removed from the store before "
        "they were relayed; --gone continue goes on behind them\n",
    )
    relaying = relay(children, edge, centre.path, "--gone", "continue")
    arrived(centre.store, 2)
    _, told = ended(relaying, signal.SIGTERM)
    assert f"{edge.store}: 2 lines (ids 2 to 3) removed before: going on\n" in told
    assert told.endswith("relayed 1 line, 2 removed before: terminated\n")
    assert stored(centre.store) == [b"a", b"d"]


def test_it_goes_on_over_another_way_to_the_next_server(
    children: Children, authority: Identity, server: Identity
) -> None:
    files = f"certKey={server.certKey}:privateKey={server.privateKey}"
    ssl = "--listen", f"session@ssl:0:interface=127.0.0.1:{files}"
    edge = Hop(children, "edge", "ack")
    centre = Hop(children, "centre", "session", *ssl, *ssl)
    first = centre.until(rb"session listening on ssl:127.0.0.1:(\d+)")
    second = centre.until(rb"session listening on ssl:127.0.0.1:(\d+)", first.end())
    one, other = (f"tls:127.0.0.1:{int(found[1])}" for found in (first, second))
    edge.send([b"a", b"b"])
    # Nobody is trusted who is not to be.
    doubted = children.run(
        *("sockservice", "relay", str(edge.store), one, "--session", "edge"), env=os.environ
    )
    assert (doubted.returncode, len(doubted.stderr.splitlines())) == (3, 1), doubted.stderr
    relaying = children.start(
        *("sockservice", "relay", str(edge.store), f"{one},{other}", "--session", "edge"),
        *("--json", "--events", "--cafile", str(authority.certKey)),
    )
    arrived(centre.store, 2)
    centre.kill()
    Hop(children, "centre", "session", *ssl[:1], ssl[1].replace("ssl:0", f"ssl:{int(second[1])}"))
    edge.send([b"c"])
    arrived(centre.store, 3)
    relaying.send_signal(signal.SIGTERM)
    output, said = relaying.communicate(timeout=PATIENCE)
    assert relaying.returncode == 143, said
    events = [json.loads(line) for line in output.splitlines()]
    targets = [each["target"] for each in events if each["event"] == "connected"]
    assert (targets[0], targets[-1]) == (one, other)
    # What the first hop knows of them travels with them.
    told = children.run("sockservice", "lines", "--json", str(edge.store)).stdout
    known = told.splitlines()[:3]  # the last is the sum
    assert stored(centre.store) == known
    assert json.loads(known[0]).keys() == {"id", "received", "peer", "listener", "line"}


def test_a_store_is_not_relayed_to_its_own_server(children: Children) -> None:
    centre = Hop(children, "centre", "session")
    relaying = relay(children, centre, centre.path)
    _, said = relaying.communicate(timeout=PATIENCE)
    assert relaying.returncode == 1
    assert said.decode() == (
        "relayed 0 lines: the server stores into this very store, or one is a copy of the other\n"
    )


def test_what_is_no_store_is_told_though_nobody_can_be_reached(children: Children) -> None:
    Path(children.folder, "notes.txt").write_text("no store\n")
    done = children.run("sockservice", "relay", "notes.txt", "127.0.0.1:1", "--session", "a")
    last = done.stderr.splitlines()[-1].decode()
    assert (done.returncode, last) == (1, "relayed 0 lines: notes.txt: file is not a database")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("no.db", "127.0.0.1:1", "--session", "a"), 1, "Error: no.db: there is no such store"),
        (("s.db", "127.0.0.1:1"), 2, "sockservice relay: Missing option '--session'."),
        (
            ("s.db", "127.0.0.1:1", "--session", "a b"),
            2,
            "sockservice relay: Invalid value for '--session': bad name of a session: 'a b'",
        ),
        (
            ("s.db", "udp:127.0.0.1:1", "--session", "a"),
            2,
            "sockservice relay: --session is for connections, and datagrams have none",
        ),
        (("s.db", "--session", "a"), 2, "sockservice relay: Missing argument 'TARGET'."),
        (
            ("s.db", "127.0.0.1:1", "--greeting", "--session", "a"),
            2,
            "sockservice relay: --greeting is not for sessions",
        ),
    ],
)
def test_what_can_not_be_relayed_is_told_in_one_line(
    children: Children, options: tuple[str, ...], status: int, said: str
) -> None:
    done = children.run("sockservice", "relay", *options, env=os.environ)
    assert (done.returncode, done.stderr.decode(), done.stdout) == (status, f"{said}\n", b"")
