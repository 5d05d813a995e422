"""Services that ship log files, against servers in memory that break."""

import os
from collections.abc import Callable
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from sockservice.client.session import SessionError
from sockservice.client.ship.shipper import FileGone, Shipper, sessionOf
from sockservice.client.ship.shipping import Shipping
from sockservice.wire.session import Hello, Opened, folded
from tests.client.test_sending import Endpoint, FarEnd
from tests.doubles import Outcome


class Stepped(Clock):
    """A clock whose calls from threads are calls."""

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        call(*arguments)


class Row:
    """What a server keeps of one session."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.note: str | None = None
        self.noted = self.notedCrc = 0


class Far(Endpoint):
    """Servers of sessions, over connections in memory."""

    # A hello is a line, too, and holds the path.
    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}
        self.limit = limit
        self._read: dict[FarEnd, int] = {}

    def serve(self) -> bool:
        """Answer what has come; return whether there was anything."""
        busy = False
        for wire in list(self.wires):
            lines = wire.lines
            start = self._read.get(wire, 0)
            if wire.ended or start == len(lines):
                continue
            busy = True
            self._read[wire] = len(lines)
            row = self.rows.setdefault(lines[0].decode().split(" ")[1], Row())
            if start == 0:
                hello = Hello.parse(lines[0])
                assert hello.at in (None, len(row.lines))
                if hello.note is not None:
                    row.note = hello.note
                    row.noted, row.notedCrc = len(row.lines), folded(row.lines)
                crc = folded(row.lines)
                opened = Opened(not row.lines, len(row.lines), crc, self.limit, 1, "f" * 32)
                opened = opened._replace(note=row.note, noted=row.noted, notedCrc=row.notedCrc)
                start = 1
                wire.answer(opened.encode())
            row.lines += lines[start:]
            wire.answer(*[b"ok"] * len(lines[start:]))
        return busy


def inCall(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return maybeDeferred(function, *arguments)


class Ground:
    """A clock, a server, and the services that ship to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Stepped()
        self.far = Far()
        self.running: list[Shipping] = []

    def ship(self, *names: str, **given: Any) -> Shipping:
        paths = [str(self.folder / name) for name in names]
        how: Any = {"backoff": float, "inThread": inCall, **given}
        shipping = Shipping(self.clock, self.far, "web", paths, **how)
        self.failed = Outcome(shipping.failed)
        shipping.startService()
        self.running.append(shipping)
        self.run()
        return shipping

    def run(self, seconds: float = 8.0) -> None:
        for _ in range(int(seconds / 0.05)):
            self.clock.advance(0.05)
            while self.far.serve():
                self.clock.advance(0)

    def die(self) -> None:
        """End the latest as kill -9 does: what was not acknowledged is forgotten."""
        shipping = self.running.pop()
        for wire in self.far.wires:
            wire.lose(ConnectionLost())
        for shipper in shipping.shippers.values():
            shipper._kept.clear()
        Outcome(shipping.stopService())

    def lines(self, name: str) -> list[bytes]:
        return self.far.rows[sessionOf("web", str(self.folder / name))].lines


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Callable[[], None]]:
    """Have the system refuse to open a path, as it never does to root, until told to allow it."""

    def refuse(path: Path) -> Callable[[], None]:
        def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
            def opened(asked: Any, *arguments: Any) -> Any:
                if os.fspath(asked) == str(path):
                    raise PermissionError(EACCES, os.strerror(EACCES), str(path))
                return call(asked, *arguments)

            return opened

        monkeypatch.setattr(os, "open", refusing(os.open))
        monkeypatch.setattr(os, "listdir", refusing(os.listdir))
        return monkeypatch.undo

    return refuse


@pytest.fixture
def ground(tmp_path: Path) -> Any:
    ground = Ground(tmp_path)
    yield ground
    while ground.running:
        ground.die()


def test_lines_are_shipped_as_they_are_written(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n2\n")
    shipping = ground.ship("a.log")
    with log.open("ab") as file:
        file.write(b"3\n")
    ground.run()
    assert ground.lines("a.log") == [b"1", b"2", b"3"]
    [shipper] = shipping.shippers.values()
    assert (shipper.position, shipper.lag, shipper.file) == (3, 0, (str(log), 6))


def test_it_goes_on_where_it_was(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n2\n")
    ground.ship("a.log")
    ground.die()
    log.rename(ground.folder / "a.log.1")
    log.write_bytes(b"3\n")
    ground.ship("a.log")
    assert ground.lines("a.log") == [b"1", b"2", b"3"]


def test_a_session_is_opened_to_ask_and_to_note_the_file_and_no_more(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n2\n")
    ground.ship("a.log")
    hellos = [Hello.parse(wire.lines[0]) for wire in ground.far.wires]
    # Only the reply tells whether it is new, and no line goes out before its file is known.
    assert [(hello.at, hello.note is None) for hello in hellos] == [(None, True), (0, False)]
    assert [wire.lines[1:] for wire in ground.far.wires] == [[], [b"1", b"2"]]
    ground.die()
    ground.ship("a.log")
    assert len(ground.far.wires) == 3


def test_broken_connections_cost_nothing(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"".join(b"%d\n" % number for number in range(5000)))
    shipping = ground.ship("a.log")
    for number in range(5000, 5005):
        with log.open("ab") as file:
            file.write(b"%d\n" % number)
        ground.clock.advance(0.2)
        ground.far.wires[-1].lose(ConnectionLost())
        ground.run()
    assert ground.lines("a.log") == [b"%d" % number for number in range(5005)]
    assert shipping.running


def test_no_more_is_read_ahead_than_the_bound(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"x" * 9 + b"\n" + b"y\n" * 100_000)
    shipping = ground.ship("a.log")
    [shipper] = shipping.shippers.values()
    assert shipper.position == 100_001
    with (ground.folder / "a.log").open("ab") as file:
        file.write(b"z\n" * 100_000)
    for _ in range(200):
        ground.clock.advance(0.2)
    assert 20_000 <= shipper.outstanding < 30_000


def test_a_rate(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"x\n" * 1000)
    ground.ship("a.log", rate=10)
    before = len(ground.lines("a.log"))
    ground.run(10)
    assert 80 <= len(ground.lines("a.log")) - before <= 110


def test_a_file_that_is_gone_ends_it_unless_it_may_go_on(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n")
    ground.ship("a.log")
    ground.die()
    log.unlink()
    (ground.folder / "b").write_bytes(b"2\n")
    (ground.folder / "b").rename(log)
    ground.ship("a.log")
    assert isinstance(ground.failed.error, FileGone)
    assert "lines behind its position 1 may be missing" in str(ground.failed.error)
    ground.die()
    ground.ship("a.log", gone="continue")
    assert ground.lines("a.log") == [b"1", b"2"]


def test_a_session_of_something_else(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    row = ground.far.rows[sessionOf("web", str(ground.folder / "a.log"))] = Row()
    row.lines = [b"x"]
    ground.ship("a.log")
    assert isinstance(ground.failed.error, SessionError)
    assert "the 1 line of session" in str(ground.failed.error)


def test_a_session_with_a_note_of_something_else(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    row = ground.far.rows[sessionOf("web", str(ground.folder / "a.log"))] = Row()
    row.note = "elsewhere"
    ground.ship("a.log")
    assert isinstance(ground.failed.error, SessionError)
    assert "note is not of a file that was shipped" in str(ground.failed.error)


def test_files_that_match_a_pattern(ground: Ground) -> None:
    for name in ("a.log", "a.log.1", "b.log.gz", "c.txt"):
        (ground.folder / name).write_bytes(b"1\n")
    (ground.folder / "d.log").mkdir()
    shipping = ground.ship("*.log*", where="end")
    assert [Path(path).name for path in shipping.shippers] == ["a.log"]
    (ground.folder / "e.log").write_bytes(b"new\n")
    ground.run()
    # What comes later is new, whatever the first began with.
    assert (ground.lines("a.log"), ground.lines("e.log")) == ([], [b"new"])
    (ground.folder / "a.log").rename(ground.folder / "a.log.2")
    ground.run()
    assert len(shipping.shippers) == 2


def test_a_file_that_matches_and_is_too_long_for_a_session_stops_no_other(ground: Ground) -> None:
    long = "x" * 240 + ".log"
    (ground.folder / long).write_bytes(b"1\n")
    refused: list[tuple[str, str]] = []
    shipping = ground.ship("*.log", refused=lambda *what: refused.append(what))
    (ground.folder / f"y{long[1:]}").write_bytes(b"1\n")
    (ground.folder / "z.log").write_bytes(b"2\n")
    ground.run(20)
    assert ground.lines("z.log") == [b"2"]
    assert [Path(path).name[0] for path, _ in refused] == ["x", "y"]
    assert refused[0][1].startswith(f"{ground.folder / long}: its session's name would have")
    assert [*shipping.shippers] == [str(ground.folder / "z.log")]


def test_a_file_that_is_named_twice_is_shipped_once(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    shipping = ground.ship("a.log", f"../{ground.folder.name}/a.log", "*.log", "*.log")
    ground.run()
    assert (len(shipping.shippers), ground.lines("a.log")) == (1, [b"1"])
    monkeypatch.chdir(ground.folder)
    relative = Shipping(ground.clock, ground.far, "web", ["./*.log", "a.log", f"{os.getcwd()}/*"])
    assert [*relative.shippers] == ["a.log"]


def test_what_was_rotated_is_shipped_with_its_file_though_that_is_not_there_yet(
    ground: Ground,
) -> None:
    (ground.folder / "a.log.2").write_bytes(b"1\n")
    (ground.folder / "a.log.1").write_bytes(b"2\n")
    (ground.folder / "worker.1").write_bytes(b"another\n")
    shipping = ground.ship("*")
    (ground.folder / "a.log").write_bytes(b"3\n")
    ground.run()
    assert sorted(Path(path).name for path in shipping.shippers) == ["a.log", "worker.1"]
    assert ground.lines("a.log") == [b"1", b"2", b"3"]
    # Whoever asks for the rotated ones alone gets them.
    assert [Path(path).name for path in ground.ship("a.log.?").shippers] == ["a.log.1", "a.log.2"]


def test_a_file_that_matched_and_is_there_no_more_costs_no_connection(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n")
    retired: list[str] = []
    shipping = ground.ship("*.log", retired=lambda shipper: retired.append(shipper.path))
    ground.run()
    with log.open("ab") as file:
        file.write(b"2\n")
    log.unlink()
    ground.run(20)
    assert (retired, shipping.shippers) == ([str(log)], {})
    assert all(wire.ended for wire in ground.far.wires)
    assert ground.lines("a.log") == [b"1", b"2"]
    # It comes again, and is followed again.
    log.write_bytes(b"3\n")
    ground.run(20)
    assert ground.lines("a.log") == [b"1", b"2", b"3"]
    # What it was rotated to is enough to go on.
    log.rename(f"{log}.1")
    ground.run(20)
    assert len(retired) == 1


def test_a_file_that_was_named_is_followed_though_it_is_not_there(ground: Ground) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n")
    shipping = ground.ship("a.log")
    log.unlink()
    ground.run(20)
    assert [*shipping.shippers] == [str(log)]


def test_lines_too_short_for_a_note_end_it(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    ground.far.limit = 50
    ground.ship("a.log")
    session = sessionOf("web", str(ground.folder / "a.log"))
    why = f"session {session}: its lines of 50 bytes are too short to keep the place"
    assert str(ground.failed.error) == why
    assert ground.lines("a.log") == []


@pytest.mark.parametrize("path", ["", ".", "logs/", ".."])
def test_a_path_that_names_no_file(path: str) -> None:
    with pytest.raises(ValueError, match="the path names no file"):
        Shipping(Clock(), Endpoint(), "web", [path])


@pytest.mark.parametrize("where", ["a.log", "."])
@pytest.mark.parametrize("gone", ["stop", "continue"])
def test_a_file_that_may_not_be_read_for_a_while_is_not_gone(
    ground: Ground, refusing: Callable[[Path], Any], gone: str, where: str
) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n2\n")
    ground.ship("a.log")
    log.write_bytes(b"1\n2\n3\n")
    ground.run()
    ground.die()
    allow = refusing(ground.folder / where)
    told: list[str] = []

    class Told(Shipper):
        def said(self, text: str) -> None:
            told.append(text)

    ground.ship("a.log", gone=gone, make=Told)
    assert (told, ground.failed.came) == (
        [f"{ground.folder / where}: Permission denied; trying again"],
        False,
    )
    allow()
    with log.open("ab") as file:
        file.write(b"4\n")
    ground.run()
    assert ground.lines("a.log") == [b"1", b"2", b"3", b"4"]


def test_a_file_that_may_not_be_read_for_a_while_where_its_end_is_looked_for(
    ground: Ground, refusing: Callable[[Path], Any]
) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n")
    allow = refusing(log)
    ground.ship("a.log", where="end")
    assert ground.failed.came is False
    allow()
    ground.run()
    with log.open("ab") as file:
        file.write(b"2\n")
    ground.run()
    assert ground.lines("a.log") == [b"2"]


def test_it_stops_at_once_while_there_is_no_connection(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    shipping = ground.ship("a.log")
    [shipper] = shipping.shippers.values()
    ground.far.refusing = True
    ground.far.wires[-1].lose(ConnectionLost())
    with (ground.folder / "a.log").open("ab") as file:
        file.write(b"2\n")
    ground.clock.advance(2)
    assert shipper.outstanding == 1
    stopped = Outcome(shipping.stopService())
    ground.clock.advance(0)
    assert stopped.came is True
    ground.running.clear()


def test_it_stops_while_a_file_may_not_be_read(
    ground: Ground, refusing: Callable[[Path], Any]
) -> None:
    log = ground.folder / "a.log"
    log.write_bytes(b"1\n")
    refusing(log)
    shipping = ground.ship("a.log", where="end")
    stopped = Outcome(shipping.stopService())
    ground.run()
    assert (stopped.came, ground.clock.getDelayedCalls()) == (True, [])
    ground.running.clear()


def test_a_file_that_does_not_exist_yet(ground: Ground) -> None:
    ground.ship("a.log")
    (ground.folder / "a.log").write_bytes(b"1\n")
    ground.run()
    assert ground.lines("a.log") == [b"1"]


def test_names_of_sessions() -> None:
    assert sessionOf("web", "/var/log/a b~é.log") == "web:/var/log/a%20b%7E%C3%A9.log"
    with pytest.raises(ValueError, match="305 characters, at most 255"):
        Shipper(Clock(), Endpoint(), "web", "/" + "x" * 300)
    with pytest.raises(ValueError, match="bad name of a session"):
        Shipping(Clock(), Endpoint(), "a b", ["*.log"])


def test_it_stops_when_what_was_read_is_acknowledged(ground: Ground) -> None:
    (ground.folder / "a.log").write_bytes(b"1\n")
    shipping = ground.ship("a.log")
    with (ground.folder / "a.log").open("ab") as file:
        file.write(b"2\n")
    ground.clock.advance(2)
    stopped = Outcome(shipping.stopService())
    assert stopped.came is False
    ground.far.serve()
    ground.clock.advance(0)
    assert (stopped.came, ground.lines("a.log")) == (True, [b"1", b"2"])
    ground.running.clear()
