"""Files that options name: regular ones alone, never waited for, bounded."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sockservice import files
from sockservice.files import LONGEST, contents


def refused(path: Path | str) -> str:
    with pytest.raises(ValueError) as problem:
        contents(str(path))
    return str(problem.value)


def test_a_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0\xff\n")
    (tmp_path / "link").symlink_to("file")
    assert contents(str(tmp_path / "link")) == b"\0\xff\n"


def test_a_file_of_the_longest_size_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(LONGEST))
    assert contents(str(path)) == bytes(LONGEST)
    path.write_bytes(bytes(LONGEST + 1))
    assert refused(path) == "longer than 4 MiB"


def test_a_file_whose_size_the_system_does_not_tell_is_read() -> None:
    assert contents("/proc/self/cmdline") == Path("/proc/self/cmdline").read_bytes()


def test_a_pipe_is_refused_whoever_is_at_its_other_end(tmp_path: Path) -> None:
    why = "it is a pipe; a regular file is wanted"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == why
    reading, writing = os.pipe()
    os.write(writing, b"127.0.0.0/8\n")
    assert refused(f"/dev/fd/{reading}") == why
    os.close(writing)
    assert refused(f"/dev/fd/{reading}") == why
    os.close(reading)


def test_what_becomes_a_pipe_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    regular = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda _: regular)
    assert refused(path) == "it is a pipe; a regular file is wanted"


def test_sockets_and_devices_are_not_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        assert refused(tmp_path / "socket") == "it is a socket; a regular file is wanted"
    assert refused("/dev/zero") == "it is a device; a regular file is wanted"


def test_a_file_that_is_open_for_writing_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as writing:
        writing.write("half")
        writing.flush()
        assert refused(path) == "another program is writing it"
    assert contents(str(path)) == b"half"


def test_where_a_lease_says_nothing_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a network."""
    path = tmp_path / "file"
    monkeypatch.setattr(files, "_LEASING", frozenset())
    with path.open("w") as writing:
        writing.write("half")
        writing.flush()
        assert contents(str(path)) == b"half"


def test_what_is_written_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no lease that tells."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    read = os.read

    def slow(descriptor: int, most: int) -> bytes:
        monkeypatch.undo()
        path.write_bytes(b"one\n")
        return read(descriptor, most)

    monkeypatch.setattr(files, "_beingWritten", lambda *_: False)
    monkeypatch.setattr(os, "read", slow)
    assert refused(path) == "another program is writing it"


def test_who_writes_meanwhile_waits_and_nobody_is_ended_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before\n")
    read = os.read
    told = []
    previous = signal.signal(signal.SIGURG, lambda *_: told.append(True))
    started: list[subprocess.Popen[bytes]] = []

    def slow(descriptor: int, most: int) -> bytes:
        writer = f"open({str(path)!r}, 'w').write('after\\n')"
        monkeypatch.undo()
        started.append(subprocess.Popen([sys.executable, "-c", writer]))
        while not told:
            signal.sigtimedwait([], 0.01)
        return read(descriptor, most)

    monkeypatch.setattr(os, "read", slow)
    try:
        assert contents(str(path)) == b"before\n"
        assert started[0].wait(30) == 0
        assert path.read_bytes() == b"after\n"
    finally:
        signal.signal(signal.SIGURG, previous)
        started[0].kill()
        started[0].wait()


def test_a_lease_does_not_outlive_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    contents(str(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    os.close(descriptor)
