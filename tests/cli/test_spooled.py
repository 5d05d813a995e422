"""The sender of a spool, against servers in memory: what it sends, keeps and says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from sockservice.cli import main
from sockservice.cli.send.spooled import Spooled, Spooling, inMemory
from sockservice.client.spool.spool import LEAST, SEGMENT, Spool
from sockservice.wire.session import Opened, folded
from tests.client.test_sending import Endpoint, FarEnd

STORE = "9b1c6f0d4c7e4b0fa2d35c8e7f601234"


class Watching(Clock):
    """A clock, and whoever waits for a descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard


class Run:
    """A run of a sender whose spool is in `folder`, and the server's `lines`."""

    def __init__(
        self,
        folder: Path,
        given: list[bytes],
        lines: list[bytes],
        *,
        limit: int = 65536,
        continuing: bool = False,
        descriptor: int | None = None,
    ) -> None:
        self.clock = Watching()
        self.endpoint = Endpoint()
        self.said: list[str] = []
        self.failed: list[str] = []
        self.long: list[int] = []
        self.taken: list[bytes] = []
        self.spool = Spool(str(folder / "spool"), LEAST, "demo")
        self.lines = lines
        self._limit = limit
        read = inMemory(given) if descriptor is None else ("standard input", descriptor)
        self.source = Spooled(self.clock, self.spool, [read], self.said.append, maybeDeferred)
        self.source.refused = lambda sizes, _: self.long.extend(sizes)
        self.sender = Spooling(
            self.clock,
            [self.endpoint],  # type: ignore[list-item]
            self.source,
            continuing=continuing,
            backoff=float,
        )
        self.sender.said = self.said.append
        self.sender.failed = lambda why, status: self.failed.append(why)
        self.ended = False
        self._running = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        self.sender.startService()
        await self.sender.begun()
        while not self.failed and (lines := await self.source.read()):
            await self.sender.ready()
            self.taken += lines
            self.sender.sendAll(lines, lambda _: None).addErrback(lambda _: None)
        self.ended = True

    @property
    def wire(self) -> FarEnd:
        return self.endpoint.wires[-1]

    def open(self) -> None:
        """Answer the hello of the present connection."""
        count = len(self.lines)
        opened = Opened(not count, count, folded(self.lines), self._limit, 1, STORE)
        self.wire.answer(opened.encode())
        self.pass_()

    def pass_(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def answer(self, count: int) -> None:
        """Store so many of the lines that came, and say so."""
        sent = self.wire.lines[1:]
        self.lines += sent[:count]
        self.wire.answer(*[b"ok"] * count)

    def kill(self) -> None:
        """Leave as kill -9 does, but for what a process has open."""
        self.clock.readers.clear()
        os.close(self.spool._folder)

    def end(self) -> None:
        self.sender.stopService()
        Deferred.fromCoroutine(self.source.close())


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def make(given: list[bytes], lines: list[bytes], **how: Any) -> Run:
        return Run(tmp_path, given, lines, **how)

    return make


def test_lines_are_kept_until_the_server_has_them(run: Callable[..., Run]) -> None:
    stored: list[bytes] = []
    first = run([b"a", b"b", b"c"], stored)
    first.open()
    assert first.wire.lines[1:] == [b"a", b"b", b"c"]
    first.answer(2)
    assert first.source.left == 6
    assert first.source.kept.startswith("6 bytes of lines are kept in ")
    first.kill()
    # The acknowledgement was not noted: the server is asked.
    second = run([b"d"], stored)
    assert second.wire.lines == [b"session/1 demo"]
    second.open()
    assert second.wire.lines[1:] == [b"c", b"d"]
    second.answer(2)
    assert (second.source.left, second.source.kept, second.ended) == (0, "", True)
    second.end()
    assert os.listdir(second.spool.path) == ["place"]
    third = run([], stored)
    third.open()
    assert (third.said, third.failed) == (["session demo goes on behind line 4"], [])
    third.end()


def test_a_break_behind_the_commit_sends_nothing_twice(run: Callable[..., Run]) -> None:
    made = run([b"a", b"b"], [])
    made.open()
    made.lines.append(b"a")
    made.wire.lose(ConnectionDone())
    made.clock.advance(100)
    made.open()
    assert made.wire.lines[1:] == [b"b"]
    made.answer(1)
    assert made.source.left == 0
    made.end()


@pytest.mark.parametrize(
    ("stored", "why", "sent"),
    [
        ([], "lines 1 to 2 of session demo are no longer in the store, nor in ", [b"c"]),
        ([b"a"], "line 2 of session demo is no longer in the store, nor in ", [b"c"]),
        ([b"a", b"b", b"c", b"x"], "4 lines of session demo are stored, and the input has 3", None),
        ([b"a", b"b", b"x"], "the first 3 lines of the input are not those that are stored", None),
    ],
)
def test_a_store_that_does_not_fit_is_noticed(
    run: Callable[..., Run], stored: list[bytes], why: str, sent: list[bytes] | None
) -> None:
    first = run([b"a", b"b", b"c"], [])
    first.open()
    first.answer(2)
    # Only what was settled is remembered, as when files are removed.
    first.spool.settle(4, 2, folded([b"a", b"b"]))
    first.kill()
    second = run([], list(stored))
    second.open()
    assert [said.startswith(why) for said in second.failed] == [True]
    assert (second.wire.lines[1:], second.taken) == ([], [])
    second.kill()
    third = run([], list(stored), continuing=True)
    third.open()
    if sent is None:
        assert third.failed
    else:
        assert (third.failed, third.wire.lines[1:]) == ([], sent)
    third.kill()


def test_a_new_spool_does_not_go_on_with_a_session_by_itself(run: Callable[..., Run]) -> None:
    first = run([b"a"], [b"x", b"y"])
    first.open()
    assert "2 lines of session demo are stored, and none of them was in " in first.failed[0]
    first.kill()
    second = run([b"b"], [b"x", b"y"], continuing=True)
    second.open()
    assert (second.failed, second.wire.lines[1:]) == ([], [b"a", b"b"])
    second.answer(1)
    second.kill()
    # From then on it knows.
    third = run([], second.lines)
    third.open()
    assert (third.failed, third.wire.lines[1:]) == ([], [b"b"])
    third.kill()


def test_lines_that_are_too_long_are_passed_over_and_removed(run: Callable[..., Run]) -> None:
    made = run([b"x" * 11, b"a", b"x" * 12, b"b", b"x" * 13], [], limit=10)
    made.open()
    assert (made.wire.lines[1:], made.long) == ([b"a", b"b"], [11, 12, 13])
    made.answer(2)
    assert made.source.left == 0
    made.end()


def test_nothing_is_read_while_the_spool_is_full(run: Callable[..., Run], tmp_path: Path) -> None:
    line = b"%01023d" % 1
    count = (LEAST + SEGMENT) // 1024
    (tmp_path / "input").write_bytes((line + b"\n") * count)
    made = run([], [], descriptor=os.open(tmp_path / "input", os.O_RDONLY))
    assert made.spool.size == LEAST
    (said,) = [said for said in made.said if "nothing more is read" in said]
    assert said.startswith(f"{made.spool.path} holds {LEAST} bytes, the limit")
    made.clock.advance(10)
    assert made.spool.size == LEAST
    made.open()
    sent = SEGMENT // 1024
    assert len(made.taken) >= sent
    made.lines += made.taken[:sent]
    made.wire.answer(*[b"ok"] * sent)
    made.clock.advance(10)
    assert made.spool.end == LEAST + SEGMENT
    assert len([each for each in made.said if "nothing more is read" in each]) == 1
    assert len(os.listdir(made.spool.path)) == 3
    made.end()


def test_a_line_longer_than_the_spool_ends_it(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"a\n" + b"x" * (LEAST + 1))
    made = run([], [], descriptor=os.open(tmp_path / "input", os.O_RDONLY))
    made.open()
    made.answer(1)
    assert "a line is longer than" in made.source.problem
    assert made.ended
    made.end()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--resend"], "--resend is not for --spool"),
        (["--session-new"], "--session-new is not for --spool"),
        (["--unacked", "kept"], "--unacked is not for --spool"),
        (["--framing", "chunks"], "a session has lines"),
        (["--greeting"], "--greeting is not for sessions"),
        (["--spool-limit", "1000"], "1000 is not in the range"),
        (["udp:127.0.0.1:1"], "--spool is for connections"),
    ],
)
def test_what_does_not_go_with_a_spool_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments if "udp" in arguments[0] else [*arguments, "127.0.0.1:1"]
    result = CliRunner().invoke(main, ["send", "--spool", "spool", *given, "a"])
    assert result.exit_code == 2
    assert why in result.output
    assert os.listdir(tmp_path) == []
