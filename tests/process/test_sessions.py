"""Sessions on a real server, with sockets and nothing else: each line once, whatever is killed."""

import os
import re
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import sleep
from typing import BinaryIO
from zlib import crc32

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Child, Children

#: Seconds in which a line of thousands is stored, about.
LOAD = 0.15
LINES = [b"%d:%s" % (number, b"x" * (number * 7 % 90)) for number in range(6000)]
OPENED = re.compile(rb"session/1 (?:new|old) position=(\d+) crc=([0-9a-f]{8}) ")


class Server(Child):
    """A server with a session listener and a store."""

    def __init__(self, children: Children, store: Path, *options: str, endpoint: str = "") -> None:
        endpoint = endpoint or "tcp:0:interface=127.0.0.1"
        super().__init__(
            children.start(
                *("twistd", "-n", "--pidfile=", "sockservice", "--store", f"sqlite:{store}"),
                *("--listen", f"session@{endpoint}", *options),
            )
        )
        self.address = self.until(rb"session listening on (?:haproxy:)?[\w-]+:(\S+)\n")[1].decode()
        if "--workers" in options:
            self.until(rb"2 workers are ready")

    def connect(self) -> socket.socket:
        if self.address.startswith("/"):
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(PATIENCE)
            made.connect(self.address)
            return made
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def heard(peer: socket.socket, data: bytes) -> bytes:
    """Send, half-close, and give all that comes back."""
    with peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        said = b""
        while more := peer.recv(65536):
            said += more
        return said


class Sender(Thread):
    """Sends what the server lacks of LINES, connecting again until all are acknowledged.

    It knows nothing but what the server tells it, as one that is started anew each time.
    """

    def __init__(self, connect: Callable[[], socket.socket], name: bytes = b"demo") -> None:
        super().__init__(daemon=True)
        self._connect = connect
        self._name = name
        self._ended = Event()
        self.refused: list[bytes] = []
        self.done = False
        self.opened = 0

    def run(self) -> None:
        while not (self.done or self._ended.is_set()):
            try:
                with self._connect() as peer, peer.makefile("rb") as replies:
                    self._transfer(peer, replies)
            except OSError:
                sleep(0.01)

    def stop(self) -> None:
        self._ended.set()
        self.join(PATIENCE)

    def _transfer(self, peer: socket.socket, replies: BinaryIO) -> None:
        peer.sendall(b"session/1 " + self._name + b"\n")
        reply = replies.readline()
        found = OPENED.match(reply)
        if found is None:
            self.refused += [reply] if reply else []
            return
        self.opened += 1
        position, crc = int(found[1]), int(found[2], 16)
        assert crc32(b"".join(line + b"\n" for line in LINES[:position])) == crc
        while position < len(LINES) and not self._ended.is_set():
            peer.sendall(b"".join(line + b"\n" for line in LINES[position : position + 600]))
            for _ in LINES[position : position + 600]:
                reply = replies.readline()
                if reply != b"ok\n":
                    self.refused += [reply] if reply else []
                    return
                position += 1
        self.done = position == len(LINES)


def stored(store: Path, name: str = "demo") -> list[bytes]:
    with closing(sqlite3.connect(store)) as database:
        return [
            line
            for (line,) in database.execute(
                "SELECT line FROM lines WHERE peer LIKE ? ORDER BY id", (f"% session {name}",)
            )
        ]


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_each_line_is_stored_once_whatever_is_killed(
    children: Children, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The server dies at random moments, and rivals with the same lines take over."""
    chance = Random(1)
    store = tmp_path / "lines.db"
    # On one address all the time, or nobody would find it again.
    endpoint = f"unix:{tmp_path}/socket"
    server = Server(children, store, *options, endpoint=endpoint)

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(PATIENCE)
        try:
            made.connect(f"{tmp_path}/socket")
        except OSError:
            made.close()
            raise
        return made

    senders = [Sender(connect)]
    senders[0].start()
    for _ in range(4):
        sleep(chance.uniform(0, LOAD))  # the random moment
        if chance.random() < 0.5:
            rival = Sender(connect)
            rival.start()
            senders.append(rival)
            sleep(chance.uniform(0, LOAD))
        server.kill()
        server = Server(children, store, *options, endpoint=endpoint)
    # Those who were taken over stop; the last goes on.
    for sender in senders[:-1]:
        sender.stop()
    senders[-1].join(PATIENCE)
    assert senders[-1].done, senders[-1].refused
    assert sum(sender.opened for sender in senders) > 1
    passing = (b"error session: taken over by ", b"error not stored: ", b"error unknown: ")
    for sender in senders:
        assert all(reply.startswith(passing) for reply in sender.refused), sender.refused
    server.process.terminate()
    assert server.end() == (0, b"")
    assert stored(store) == LINES


def test_across_workers_the_older_is_told_at_its_next_line(
    children: Children, tmp_path: Path
) -> None:
    server = Server(children, tmp_path / "lines.db", "--workers", "2")
    older = server.connect()
    files = [older.makefile("rb")]
    older.sendall(b"session/1 demo\na\n")
    assert files[0].readline().startswith(b"session/1 new position=0 ")
    assert files[0].readline() == b"ok\n"
    for _ in range(4):  # in one worker or the other
        newer = server.connect()
        files.append(newer.makefile("rb"))
        newer.sendall(b"session/1 demo\n")
        assert files[-1].readline().startswith(b"session/1 old position=1 ")
        told = "{}:{}".format(*newer.getsockname()).encode()
        with suppress(OSError):  # it may know by now
            older.sendall(b"late\n")
        assert files[-2].readline() == b"error session: taken over by " + told + b"\n"
        assert files[-2].readline() == b""
        older.close()
        older = newer
    older.close()
    server.process.terminate()
    assert server.end() == (0, b"")
    assert stored(tmp_path / "lines.db") == [b"a"]


def test_unix_users_own_their_sessions(children: Children, tmp_path: Path) -> None:
    server = Server(children, tmp_path / "lines.db", endpoint=f"unix:{tmp_path}/socket")
    said = heard(server.connect(), b"session/1 demo\na\n")
    assert said.startswith(b"session/1 new position=0 ")
    assert said.endswith(b"\nok\n")
    server.kill()
    with closing(sqlite3.connect(tmp_path / "lines.db")) as database:
        owners = database.execute("SELECT name, owner FROM sessions").fetchall()
    assert owners == [("demo", f"uid={os.getuid()}")]


def test_packets_are_lines_of_a_session(children: Children, tmp_path: Path) -> None:
    store, path = tmp_path / "lines.db", str(tmp_path / "socket")
    server = Server(children, store, endpoint=f"unix-seqpacket:{path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(path)
        peer.send(b"session/1 demo")
        assert peer.recv(1000).startswith(b"session/1 new position=0 ")
        for line in (b"one\n", b"two"):
            peer.send(line)
            assert peer.recv(1000) == line.replace(b"one", b"ok").replace(b"two", b"ok")
    server.process.terminate()
    assert server.end() == (0, b"")
    assert stored(store) == [b"one", b"two"]


def test_behind_a_proxy_the_peer_is_the_one_it_names(children: Children, tmp_path: Path) -> None:
    store = tmp_path / "lines.db"
    server = Server(children, store, endpoint=f"haproxy:unix:{tmp_path}/socket")
    said = heard(
        server.connect(), b"PROXY TCP4 192.0.2.7 192.0.2.9 40022 5556\r\nsession/1 demo\na\n"
    )
    assert said.endswith(b"\nok\n")
    server.process.terminate()
    assert server.end() == (0, b"")
    with closing(sqlite3.connect(store)) as database:
        [peer] = database.execute("SELECT peer FROM lines").fetchone()
        # The user at the other end is the proxy's, not the peer's.
        [owner] = database.execute("SELECT owner FROM sessions").fetchone()
    assert (peer, owner) == ("192.0.2.7:40022 session demo", "")


@contextmanager
def secured(server: Server, authority: Identity, own: Identity | None) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(authority.certKey))
    context.check_hostname = False
    if own is not None:
        context.load_cert_chain(own.certKey, own.privateKey)
    with context.wrap_socket(server.connect()) as peer:
        yield peer


def asked(peer: ssl.SSLSocket, data: bytes, replies: int) -> list[bytes]:
    peer.sendall(data)
    file = peer.makefile("rb")
    return [file.readline() for _ in range(replies)]


def test_the_subject_of_a_certificate_owns_its_sessions(
    children: Children, tmp_path: Path, server: Identity, authority: Identity, alice: Identity
) -> None:
    store = tmp_path / "lines.db"
    files = f"privateKey={server.privateKey}:certKey={server.certKey}"
    endpoint = f"ssl:0:interface=127.0.0.1:{files}:caCerts={authority.certKey}"
    child = Server(children, store, "--listen", "session@tcp:0", endpoint=endpoint)
    with secured(child, authority, alice) as peer:
        opened, ok = asked(peer, b"session/1 demo\na\n", 2)
        assert opened.startswith(b"session/1 new position=0 ")
        assert ok == b"ok\n"
    with secured(child, authority, Identity(tmp_path, "bob", authority, hosts=())) as peer:
        assert asked(peer, b"session/1 demo\n", 2) == [
            b"error session: it belongs to another\n",
            b"",
        ]
    # Whoever comes without a certificate is another.
    plain = child.until(rb"session listening on tcp:\S+:(\d+)\n")[1]
    with socket.create_connection(("127.0.0.1", int(plain)), PATIENCE) as other:
        assert heard(other, b"session/1 demo\n") == b"error session: it belongs to another\n"
    with secured(child, authority, alice) as peer:
        assert asked(peer, b"session/1 demo\n", 1)[0].startswith(b"session/1 old position=1 ")
    child.process.terminate()
    assert child.end() == (0, b"")


# What keeps the service from starting


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_sessions_need_a_store(children: Children, options: tuple[str, ...]) -> None:
    done = children.run(
        "twistd", "-n", "--pidfile=", "sockservice", "--listen", "session@tcp:0", *options
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == b"sockservice: --listen session@tcp:0: session stores lines: it needs --store\n"
    )


def test_sessions_need_an_engine_that_keeps_them(children: Children, tmp_path: Path) -> None:
    (tmp_path / "journal.py").write_text(
        "class Journal:\n"
        "    def __init__(self, place, retention): pass\n"
        "    def open(self): print('opened')\n"
        "    def commit(self, batches): pass\n"
        "    def tidy(self): return False\n"
        "    def close(self): pass\n"
    )
    words = ("--listen", "session@tcp:0", "--store", "journal.Journal:here")
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", *words)
    assert done.returncode == 1
    assert done.stderr == b"sockservice: the store journal.Journal keeps no sessions\n"
    assert b"opened" not in done.stdout


def test_no_datagrams_are_lines_of_a_session(children: Children, tmp_path: Path) -> None:
    words = ("--listen", "session@udp:0", "--store", f"sqlite:{tmp_path}/lines.db")
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", *words)
    assert (done.returncode, done.stderr) == (
        1,
        b"sockservice: --listen session@udp:0: session is no protocol for datagrams\n",
    )


def test_a_session_is_forgotten_when_it_is_not_used(children: Children, tmp_path: Path) -> None:
    server = Server(children, tmp_path / "lines.db", "--session-age", "1")
    assert heard(server.connect(), b"session/1 demo\na\n").endswith(b"\nok\n")
    server.until(rb"1 session was removed: unused for too long")
    said = heard(server.connect(), b"session/1 demo at=0\nb\n")
    assert said.startswith(b"session/1 new position=0 crc=00000000 limit=65536 epoch=2 ")
    server.process.terminate()
    assert server.end() == (0, b"")
    assert b"2 sessions opened, 0 refused, 0 taken over, 1 expired" in server.output
