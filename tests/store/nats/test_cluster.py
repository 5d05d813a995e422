"""The store on three real nodes: what is refused at the start, and what is promised after it."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from click.testing import CliRunner

from sockservice.cli import main
from sockservice.errors import CannotStart, StoreError
from sockservice.store.engine import Batch, Claim, Denied, Mark, Marked, Retention
from sockservice.store.nats import demands
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.link import NodeLink
from sockservice.store.nats.place import Place, parsed
from sockservice.store.nats.reading import StreamReader
from sockservice.store.sqlite import SQLite
from sockservice.wire.session import Opened
from tests.conftest import PATIENCE, Child, Children, Log, emptied
from tests.ports import reserved
from tests.soak import clustered

NOW = 1_790_000_000_000_000


@contextmanager
def opened(place: Place, retention: Retention | None = None) -> Iterator[JetStream]:
    engine = JetStream(place, retention or Retention())
    engine.keepSessions()
    engine.open()
    try:
        yield engine
    finally:
        engine.close()


def refused(place: Place, retention: Retention | None = None) -> str:
    """Give the line that a service ends with at its start."""
    with pytest.raises(CannotStart) as ended, opened(place, retention):
        pass
    return str(ended.value)


def asked(place: Place, subject: str, **given: Any) -> dict[str, Any]:
    made = NodeLink(place)
    made.open()
    try:
        return made.call(made.ask(subject, **given))
    finally:
        made.close()


def lines(*said: bytes) -> Batch:
    return Batch(NOW, "192.0.2.1:1", "tcp:192.0.2.9:555", list(said))


def claim(name: str = "demo", peer: str = "192.0.2.7:7") -> Claim:
    return Claim(name, "", 1000, None, None, NOW, peer)


def marked(epoch: int, position: int, *said: bytes) -> Marked:
    return Marked(lines(*said), Mark("demo", epoch, position))


def run(*words: str) -> list[str]:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


# The start; what is refused there is in test_refusals.


def test_what_can_be_made_and_what_is_there(stream: Place) -> None:
    there = stream._replace(create=False)
    assert JetStream(there).check() == "there"
    assert JetStream(stream._replace(stream="NONE")).check() == "to be created"
    assert "leave a tenth between them" in refused(there, Retention(size=64 << 20))
    huge = stream._replace(stream="HUGE", maxBytes=1 << 40)
    said = refused(huge)
    assert "the stream cannot be made: " in said
    assert said.endswith("each node reserves max_bytes=1099511627776 on its disk")
    assert "\n" not in said


def test_nodes_that_do_not_sync_are_refused(tmp_path: Path) -> None:
    late = Cluster(tmp_path, 1)
    config = late.nodes[0].folder / "config"
    config.write_text(config.read_text().replace("sync_interval: always", ""))
    try:
        late.start()
        place = parsed(late.url(options="create&max_bytes=1M"))
        assert "n1 does not sync what it acknowledges" in refused(place)
        with opened(place._replace(monitors=(), unchecked=True)) as engine:
            assert engine.commit([lines(b"a")]) is None
        assert "num_replicas 1; 3 are needed" in refused(place._replace(replicas=3))
    finally:
        late.stop()


def test_without_the_extra_the_line_names_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['nats'] = None\n"
        "from sockservice.daemon.options import Options\n"
        "try: Options().parseOptions(['--store', 'nats://a:secret@h/S'])\n"
        "except Exception as problem: print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert len(said) == 1
    assert said[0].startswith("--store nats://h/S: it needs the extra nats, pip install ")


def test_nothing_imports_the_client_but_the_store() -> None:
    script = (
        "import sys, sockservice.tap, sockservice.cli, sockservice.daemon.service\n"
        "from sockservice.daemon.engines import backend\n"
        "from sockservice.store.engine import EVERYTHING\n"
        "backend('sqlite:x', EVERYTHING); print('nats' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


# Sessions of several instances.


def test_two_instances_keep_a_session_as_one_would(stream: Place) -> None:
    with opened(stream) as one, opened(stream) as other:
        [first] = one.commit([claim()]) or []
        assert isinstance(first, Opened)
        assert one.commit([marked(1, 0, b"a", b"b")]) == [None]
        [second] = other.commit([claim(peer="192.0.2.8:8")]) or []
        assert isinstance(second, Opened)
        assert (second.new, second.position, second.epoch) == (False, 2, 2)
        assert second.store == first.store
        # The older does not know yet, and is told by the stream.
        assert one.commit([marked(1, 2, b"late"), lines(b"plain")]) == [
            Denied("taken over by 192.0.2.8:8", permanent=True),
            None,
        ]
        assert other.commit([marked(2, 2, b"c")]) == [None]
        assert one.commit([claim()])[0].position == 3  # type: ignore[index,union-attr]
    assert sorted(clustered.read(stream)) == [b"a", b"b", b"c", b"plain"]


def test_lines_of_a_session_that_no_message_holds_at_once_are_all_stored(stream: Place) -> None:
    said = [b"%6d" % number + b"x" * 10_000 for number in range(120)]
    with opened(stream) as engine:
        engine.commit([claim()])
        assert engine.commit([lines(*said), marked(1, 0, *said), marked(1, 120, b"end")]) == [
            None,
            None,
            None,
        ]
    kept = clustered.read(stream)
    assert sorted(kept) == sorted([*said, *said, b"end"])


def test_a_full_stream_says_so_and_takes_lines_again(stream: Place) -> None:
    small = stream._replace(stream="SMALL", maxBytes=100_000)
    with opened(small) as engine:
        with pytest.raises(StoreError) as full:
            for _ in range(200):
                engine.commit([lines(b"x" * 1000)])
        assert str(full.value).startswith("not stored: the stream is full")
        assert full.value.retry and full.value.certain
        asked(small, "STREAM.PURGE.SMALL")
        assert engine.commit([lines(b"again")]) is None


def test_a_stream_made_anew_is_another_store(stream: Place, log: Log) -> None:
    place = stream._replace(stream="ANEW", maxBytes=1 << 20)
    with opened(place) as engine:
        asked(place, "STREAM.DELETE.ANEW")
        config = demands.configuration(place)
        asked(place, "STREAM.CREATE.ANEW", **config)
        engine._watch._next = 0.0
        with pytest.raises(StoreError, match="it was made anew") as ended:
            while True:
                engine.tidy()
        assert not ended.value.retry


# Reading.


def test_lines_and_sessions_are_read_by_the_commands(stream: Place, cluster: Cluster) -> None:
    with opened(stream) as engine:
        engine.commit([claim(), claim("b/1")])
        engine.commit([lines(b"one", b"two"), marked(1, 0, b"\xff", b"four")])
        engine.commit([lines(b"five")])
    url = cluster.url("TESTS", "")
    objects = [json.loads(each) for each in run("lines", "--json", url)]
    assert objects.pop()["lines"] == 5
    ids = [each["id"] for each in objects]
    assert ids == sorted(ids)
    assert [each.get("line") for each in objects if "session" not in each["peer"]] == [
        "one",
        "two",
        "five",
    ]
    assert run("lines", "--after", str(ids[-2]), url) == ["five"]
    assert len(run("lines", "--limit", "2", url)) == 2
    assert run("lines", "--session", "demo", "--after", str(ids[0]), url)[-1] == "four"
    assert len(run("lines", "--since", "2026-01-01", url)) == 5
    assert run("lines", "--since", "2036-11-22T00:00:00Z", url) == []
    positions = {
        each["session"]: each["position"]
        for each in map(json.loads, run("sessions", "--json", url))
        if "session" in each
    }
    assert positions == {"demo": 2, "b/1": 0}


def test_what_is_read_is_what_a_plain_client_reads(stream: Place) -> None:
    with opened(stream) as engine:
        engine.commit([claim()])
        for number in range(30):
            engine.commit([lines(b"%d" % number, b""), marked(1, number, b"\xff\0\n%d" % number)])
    there = asyncio.run(clustered.plainly(stream))
    assert len(there) == 90
    assert clustered.read(stream) == there


def test_lines_are_followed_whatever_node_goes(
    children: Children, stream: Place, cluster: Cluster
) -> None:
    url = cluster.url("TESTS", "")
    with opened(stream) as engine:
        engine.commit([lines(b"first"), claim()])

        def following(*options: str) -> Child:
            return Child(children.start("sockservice", "lines", "--follow", *options, url))

        every, some, other = (
            following(),
            following("--json", "--session", "demo", "--limit", "3"),
            following("--after", "1048577", "--since", "2026-01-01"),
        )
        every.until(rb"first\n")
        engine.commit([lines(b"second"), marked(1, 0, b"a", b"b")])
        every.until(rb"(?s)first\n.*second\n")
        other.until(rb"second\n")
        # One that leads, or that one of these is connected to.
        node = cluster.node(clustered.leader(cluster, "TESTS"))
        node.kill()
        try:
            engine.commit([lines(b"third"), marked(1, 2, b"c")])
            every.until(rb"(?s)first\n.*third\n")
            other.until(rb"(?s)second\n.*third\n")
            status, errors = some.end()
        finally:
            node.start()
            clustered.caughtUp(cluster)
    objects = [json.loads(line) for line in some.output.splitlines()]
    assert (status, errors) == (0, b"")
    assert [each.get("line") for each in objects[:-1]] == ["a", "b", "c"]
    assert objects[-1]["lines"] == 3
    assert b"first" not in other.output


def test_a_stream_is_copied_to_a_file_that_is_a_store(
    stream: Place, cluster: Cluster, tmp_path: Path
) -> None:
    url, copy = cluster.url("TESTS", ""), tmp_path / "copy.db"
    with opened(stream) as engine:
        engine.commit([claim(), lines(b"one", b"two")])
        engine.commit([marked(1, 0, b"\xff", b"")])
        assert run("backup", url, str(copy)) == [f"{copy}: 4 lines, last id {(4 << 20) - 1}"]
        engine.commit([marked(1, 2, b"three"), lines(b"four"), claim("late")])
        assert run("backup", url, str(copy), "--append")[0].startswith(f"{copy}: 6 lines, last id ")
        assert run("backup", url, str(copy), "--append")[0].startswith(f"{copy}: 6 lines, last id ")
    assert run("verify", str(copy))
    for command in ("lines", "sessions"):
        of = [[json.loads(o) for o in run(command, "--json", s)] for s in (url, str(copy))]
        assert of[0][:-1] == of[1][:-1]
        assert of[0][-1].get("identity") == of[1][-1].get("identity")
    backend = SQLite(str(copy))
    backend.keepSessions()
    backend.open()
    assert backend.commit([claim()])[0].position == 3  # type: ignore[index,union-attr]
    backend.close()
    emptied(stream)
    done = CliRunner().invoke(main, ["backup", url, str(copy), "--append"])
    assert done.exit_code == 1
    assert "it is the copy of another store" in done.stderr


def test_a_copy_has_the_sessions_as_of_its_last_line(stream: Place) -> None:
    with opened(stream) as engine, closing(StreamReader(stream)) as reader:
        engine.commit([claim()])
        engine.commit([marked(1, 0, b"a")])
        rows = reader._link.call(reader._sessions(1)).rows
        assert [(row.name, row.position) for row in rows] == [("demo", 0)]
        _, last, found = reader.snapshot()
        assert (last >> 20, found.rows[0].position) == (2, 1)


@pytest.mark.parametrize("command", ["verify", "compact", "relay"])
def test_commands_on_a_file_say_that_a_stream_is_none(command: str) -> None:
    words = [
        command,
        "nats://h/S",
        *{"relay": ["h:1", "--session", "s"]}.get(command, []),
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "this command is not for a store in NATS" in done.stderr


# The promise.


@pytest.mark.parametrize(
    "fault", [clustered.killLeader, clustered.restart], ids=lambda fault: fault.__name__
)
def test_what_was_acknowledged_survives_nodes(
    children: Children, cluster: Cluster, fault: clustered.Fault
) -> None:
    name = fault.__name__.upper()
    try:
        acknowledged, stored = clustered.clustered(children, cluster, name, [fault], Random(555), 2)
    finally:
        for node in cluster.nodes:
            node.kill(signal.SIGCONT)
        clustered.caughtUp(cluster)
    assert 0 < acknowledged <= stored


def test_what_was_acknowledged_survives_the_power_of_all_nodes(
    children: Children, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        try:
            disks = clustered.onDisks(tmp_path / "nodes", stack)
        except OSError as problem:
            pytest.skip(str(problem))
        made = Cluster(tmp_path / "nodes")
        stack.callback(made.stop)
        made.start()
        acknowledged, stored = clustered.clustered(
            children, made, "POWER", [clustered.ofRoot(disks)["power"]], Random(555), 2
        )
    assert 0 < acknowledged <= stored


def test_a_balancer_tells_either_server_who_the_peer_is(
    children: Children, stream: Place, cluster: Cluster, tmp_path: Path, opened: ExitStack
) -> None:
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        pytest.skip("haproxy is not here")
    url = cluster.url("TESTS", "")
    behind = ("--listen", "session@haproxy:tcp:0:interface=127.0.0.1")
    command = ("twistd", "-n", "--pidfile=", "sockservice", "--store", url, *behind)
    servers = [Child(children.start(*command)) for _ in range(2)]
    listening = rb"session listening on haproxy:tcp:127.0.0.1:(\d+)\n"
    ports = [server.until(listening)[1].decode() for server in servers]
    at = opened.enter_context(reserved()).getsockname()
    (tmp_path / "haproxy").write_text(
        "defaults\n mode tcp\n timeout connect 9s\n timeout client 1h\n timeout server 1h\n"
        f"frontend lines\n bind 127.0.0.1:{at[1]}\n default_backend servers\n"
        "backend servers\n balance roundrobin\n"
        f" server a 127.0.0.1:{ports[0]} send-proxy-v2\n"
        f" server b 127.0.0.1:{ports[1]} send-proxy-v2\n"
    )
    children.start(haproxy, "-f", str(tmp_path / "haproxy"))
    peers = []
    for number in range(4):
        until = monotonic() + PATIENCE
        while True:
            # It may not listen yet.
            with (
                suppress(ConnectionError),
                socket.create_connection(at, PATIENCE) as peer,
                peer.makefile("rb") as replies,
            ):
                peers.append("{}:{}".format(*peer.getsockname()))
                peer.sendall(b"session/1 moving at=%d\n%d\n" % (number, number))
                assert b" position=%d " % number in replies.readline()
                assert replies.readline() == b"ok\n"
                break
            assert monotonic() < until
    objects = [json.loads(each) for each in run("lines", "--json", url)][:-1]
    assert [each["line"] for each in objects] == ["0", "1", "2", "3"]
    assert [each["peer"] for each in objects] == [f"{each} session moving" for each in peers[-4:]]
