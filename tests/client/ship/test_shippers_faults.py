"""Faults of other shippers of log files, from their trackers: each by its kind."""

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterator
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest

from sockservice.client.ship.content import SUFFIXES, PlainFile
from sockservice.client.ship.place import Gone
from tests.client.ship.carrier import Carrier, Server


class Log:
    """A log file, the session it goes to, and who carries it there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = Server()
        self.carriers: list[Carrier] = []

    def up(self, where: str = "oldest") -> Carrier:
        self.carriers.append(Carrier(self.path, self.server, where))
        return self.carriers[-1]

    def down(self) -> None:
        self.carriers[-1].die()

    def pass_(self) -> None:
        """Carry what there is, in one life of the carrier."""
        self.up().carry()
        self.down()

    def write(self, *lines: str, to: str = "") -> None:
        with open(to or self.path, "a") as file:
            file.write("".join(line + "\n" for line in lines))

    def at(self, end: str) -> Path:
        return Path(f"{self.path}{end}")

    @property
    def lines(self) -> list[str]:
        return [line.decode() for line in self.server.lines]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "app.log")
    yield log
    for carrier in log.carriers:
        carrier.die()


def test_a_number_of_an_inode_that_is_used_again(log: Log) -> None:
    # beats#1341, beats#6984, vector#23076, vector#25079, fluent-bit#8025, rsyslog#4875,
    # rsyslog#2659
    log.write("a", "b")
    log.pass_()
    log.path.rename(log.at(".1"))
    log.at(".1.gz").write_bytes(gzip.compress(log.at(".1").read_bytes()))
    # In place, as if the file system had given the number to another file.
    with log.at(".1").open("r+b") as file:
        file.truncate()
    log.at(".1").rename(log.path)
    log.write("another", "one")
    log.pass_()
    assert log.lines == ["a", "b", "another", "one"]


def test_an_offset_behind_the_end_of_the_file(log: Log) -> None:
    # vector#23076: one may seek there, and nothing more comes.
    log.write("a", "b" * 50)
    log.pass_()
    log.path.write_text("c\n")
    with pytest.raises(Gone):
        log.up()


def test_short_files_are_read_like_others(log: Log) -> None:
    # beats#44780: less than 1024 bytes; vector#25079: no fingerprint
    log.write("a")
    log.pass_()
    log.path.rename(log.at(".1"))
    log.write("b")
    log.pass_()
    assert log.lines == ["a", "b"]


@pytest.mark.parametrize("live", [True, False])
def test_files_that_begin_alike(log: Log, live: bool) -> None:
    # beats#44780, vector#25079: equal headers are taken for the same file
    header = ["#" * 90] * 100
    expected = []
    carrier = log.up()
    for number in range(4):
        log.write(*header, f"line {number}")
        expected += [*header, f"line {number}"]
        if live:
            carrier.carry()
        elif number % 2:
            log.pass_()
        log.at(".2").exists() and log.at(".2").rename(log.at(".3"))
        log.at(".1").exists() and log.at(".1").rename(log.at(".2"))
        log.path.rename(log.at(".1"))
    (carrier if live else log.up()).settle()
    assert log.lines == expected


@pytest.mark.parametrize("rotations", [1, 5])
def test_rotated_while_nobody_looked(log: Log, rotations: int) -> None:
    # fluent-bit#1330, fluent-bit#2110, loki#2353
    log.write("a", "b")
    log.pass_()
    log.write("c")
    for number in range(rotations):
        for each in range(number, -1, -1):
            log.at(f".{each}" if each else "").rename(log.at(f".{each + 1}"))
        log.write(f"new {number}")
    log.pass_()
    assert log.lines == ["a", "b", "c", *(f"new {number}" for number in range(rotations))]


@pytest.mark.parametrize("live", [True, False])
def test_a_writer_that_goes_on_with_the_renamed_file(log: Log, live: bool) -> None:
    # beats#678, promtail's loki#2353
    with log.path.open("a") as writer:
        writer.write("a\n")
        writer.flush()
        carrier = log.up()
        carrier.carry()
        if not live:
            log.down()
        log.path.rename(log.at(".1"))
        log.path.touch()
        if live:
            carrier.carry()
        writer.write("b\n")
        writer.flush()
        if not live:
            carrier = log.up()
        carrier.carry()
        assert log.lines == ["a", "b"]
    log.write("c")
    carrier.carry()
    assert log.lines == ["a", "b", "c"]


def test_a_writer_that_never_reopens_its_file(log: Log) -> None:
    with log.path.open("a") as writer:
        writer.write("a\n")
        writer.flush()
        carrier = log.up()
        log.path.rename(log.at(".1"))
        log.path.touch()
        # Nothing follows, however long it is silent.
        carrier.settle()
        writer.write("b\n")
        writer.flush()
        carrier.settle()
        assert log.lines == ["a", "b"]
        writer.write("c\n")
        writer.flush()
        carrier.carry()
        # Something does: after a minute without a byte it counts as done.
        log.write("d")
        carrier.carry()
        assert log.lines == ["a", "b", "c"]
        carrier.settle()
        assert log.lines == ["a", "b", "c", "d"]


def copytruncate(log: Log) -> None:
    shutil.copy(log.path, log.at(".1"))
    os.truncate(log.path, 0)


@pytest.mark.parametrize("more", [0, 1, 30])
@pytest.mark.parametrize("seen", [0, 1, 2])
@pytest.mark.parametrize("live", [True, False])
def test_copied_and_truncated(log: Log, live: bool, seen: int, more: int) -> None:
    # beats#39731, beats#38070, fluent-bit#375, rsyslog#3918; loki#924: grown again unnoticed
    carrier = log.up()
    log.path.touch()
    carrier.carry()
    log.write(*["seen"] * seen)
    carrier.carry()
    if not live:
        log.down()
    log.write("left")
    copytruncate(log)
    log.write(*["new"] * more)
    (carrier if live else log.up()).settle()
    assert log.lines == ["seen"] * seen + ["left"] + ["new"] * more


@pytest.mark.parametrize("live", [True, False])
def test_copied_and_truncated_again_and_again_with_the_same_lines(log: Log, live: bool) -> None:
    # opentelemetry-collector-contrib#43693: the first bytes are equal, the offset is behind the
    # end: nothing more is read
    same = ["#" * 90] * 50
    carrier = log.up()
    for number in range(3):
        log.write(*same, *["more"] * (3 - number))
        if live:
            carrier.carry()
        elif number == 1:
            log.pass_()
        log.at(".1").exists() and log.at(".1").rename(log.at(f".{9 - number}"))
        copytruncate(log)
        log.write(*same[:1])
        if live:
            carrier.carry()
    (carrier if live else log.up()).settle()
    expected = []
    for number in range(3):
        expected += [*same, *same[: number > 0], *["more"] * (3 - number)]
    assert log.lines == [*expected, same[0]]


@pytest.mark.parametrize("told", [True, False])
def test_a_note_that_is_late(log: Log, told: bool) -> None:
    # vector#26334: an old place is kept in the end, and all behind it is sent again
    log.write(*["a line"] * 3000)
    carrier = log.up()
    for _ in range(50):
        carrier.take()
        if told or not carrier.follower.due:
            carrier.deliver(2)
            continue
        # Kept, and the shipper dies before it knows.
        note = carrier.follower.note
        log.server.note = note.encode()
        log.server.noted, log.server.notedCrc = len(log.server.lines), log.server.crc
        log.down()
        carrier = log.up()
        told = True
    log.down()
    assert log.server.noted < len(log.server.lines)
    # However old it is, what is stored behind it counts.
    copytruncate(log)
    log.write("new")
    subprocess.run(["gzip", "-n", str(log.at(".1"))], check=True)
    log.pass_()
    assert log.lines == ["a line"] * 3000 + ["new"]


def test_half_a_line_was_seen_of_a_file_that_has_grown_again(log: Log) -> None:
    carrier = log.up()
    log.path.write_text("lin")
    carrier.carry()
    log.path.write_text("line 1\nline 2\n")
    copytruncate(log)
    log.write("line 3")
    carrier.settle()
    assert log.lines == ["line 1", "line 2", "line 3"]


def test_a_copy_that_is_not_followed_by_truncation(log: Log) -> None:
    carrier = log.up()
    log.write("a")
    carrier.carry()
    log.write("b")
    shutil.copy(log.path, log.at(".1"))
    carrier.carry()
    log.write("c")
    carrier.settle()
    assert log.lines == ["a", "b", "c"]


def test_truncated_without_a_copy(log: Log) -> None:
    carrier = log.up()
    log.write("a", "b")
    carrier.carry()
    log.path.write_text("c\n")
    carrier.carry()
    assert log.lines == ["a", "b", "c"]
    assert "app.log was truncated and there is no copy of it" in carrier.said[0]


def packed(path: Path, end: str, module: Any) -> None:
    with module.open(f"{path}{end}", "wb") as file:
        file.write(path.read_bytes())
    # As gzip and its like do.
    times = path.stat()
    os.utime(f"{path}{end}", ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(("end", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_a_file_and_its_compressed_twin(log: Log, end: str, module: Any, live: bool) -> None:
    # vector#7990: both are sent
    log.write("a", "b")
    carrier = log.up()
    carrier.carry()
    if not live:
        log.down()
    log.write("c")
    log.path.rename(log.at(".1"))
    log.write("d")
    packed(log.at(".1"), end, module)
    if live:
        carrier.carry()
    log.at(".1").unlink()
    (carrier if live else log.up()).settle()
    assert log.lines == ["a", "b", "c", "d"]


def test_zstandard(log: Log) -> None:
    if SUFFIXES[".zst"] is None:
        pytest.skip("neither compression.zstd nor zstandard is there")
    zstandard = pytest.importorskip("zstandard")
    log.write("a")
    log.at(".1.zst").write_bytes(
        zstandard.compress(b"old\n" * 1000) + zstandard.compress(b"older\n")
    )
    log.pass_()
    assert log.lines == ["old"] * 1000 + ["older", "a"]


def test_an_empty_compressed_file(log: Log) -> None:
    log.write("a")
    log.pass_()
    log.path.rename(log.at(".2"))
    gzip.open(log.at(".1.gz"), "wb").close()
    log.write("b")
    log.pass_()
    assert log.lines == ["a", "b"]


def test_a_compressed_file_that_is_not_whole_yet(log: Log) -> None:
    whole = gzip.compress(os.urandom(300_000).hex().encode() + b"\nz\n")
    log.at(".1.gz").write_bytes(whole[:200_000])
    log.write("b")
    carrier = log.up()
    carrier.carry(1)
    assert (log.lines, len(carrier.said)) == ([], 1)
    log.at(".1.gz").write_bytes(whole)
    carrier.carry(1)
    # The first line is over the limit.
    assert log.lines == ["z", "b"]


def test_a_damaged_compressed_file_does_not_hold_up_the_rest(log: Log) -> None:
    log.at(".1.gz").write_bytes(gzip.compress(b"a\n" * 10)[:-6])
    log.write("b")
    carrier = log.up()
    carrier.settle()
    assert log.lines == ["a"] * 10 + ["b"] or log.lines == ["b"]
    assert "passed over" in carrier.said[-1]


def test_a_last_line_without_an_ending(log: Log) -> None:
    # filebeat#296, filebeat#342, file.d#912
    with log.path.open("a") as writer:
        writer.write("a\nlast")
        writer.flush()
        carrier = log.up()
        carrier.settle()
        # It may still grow.
        assert log.lines == ["a"]
        writer.write(" one")
    log.path.rename(log.at(".1"))
    carrier.carry()
    assert log.lines == ["a", "last one"]


def test_a_line_over_the_limit_stops_nothing(log: Log) -> None:
    # fluent-bit#370, fluent-bit#10435
    log.write("a", "x" * 101, "y" * 1_000_000, "b", "z" * 100)
    carrier = log.up()
    carrier.carry()
    assert log.lines == ["a", "b", "z" * 100]
    assert carrier.follower.long == 2
    assert "a line of 1000000 bytes was passed over, the limit is 100" in carrier.said[-1]
    log.down()
    log.write("c")
    log.pass_()
    assert log.lines[-1] == "c"


def test_a_line_without_an_end_does_not_hold_up_a_stop(log: Log, monkeypatch: Any) -> None:
    log.write("a")
    carrier = log.up()
    carrier.carry()
    os.truncate(log.path, 2**33)
    read = PlainFile.read
    seen: list[int] = []

    def stopping(self: PlainFile, offset: int, size: int) -> bytes:
        seen.append(offset)
        if offset > 2**22:
            carrier.follower.stop()
        assert offset < 2**24, "it goes on"
        return read(self, offset, size)

    # As of another thread, in the middle of it.
    monkeypatch.setattr(PlainFile, "read", stopping)
    assert carrier.follower.take(1) == []
    assert max(seen) > 2**22
    assert carrier.said == []


@pytest.mark.parametrize("live", [True, False])
def test_a_file_that_is_deleted(log: Log, live: bool) -> None:
    log.write("a")
    carrier = log.up()
    carrier.carry()
    log.write("b")
    if live:
        log.path.unlink()
        carrier.carry()
        assert log.lines == ["a", "b"]
        # An old file is not taken for a new one.
        log.write("old", to=str(log.at(".2")))
        os.utime(log.at(".2"), (1, 1))
        carrier.carry()
        log.write("c")
        carrier.carry()
        log.down()
        log.write("d")
        log.pass_()
        assert log.lines == ["a", "b", "c", "d"]
    else:
        log.down()
        log.path.unlink()
        with pytest.raises(Gone):
            log.up()


@pytest.mark.parametrize("end", ["", ".1.gz"])
@pytest.mark.parametrize("live", [True, False])
def test_a_hole_that_a_writer_leaves_behind_truncation(log: Log, live: bool, end: str) -> None:
    with log.path.open("w") as writer:  # not O_APPEND
        writer.write("a\n" * 5000)
        writer.flush()
        carrier = log.up()
        carrier.carry()
        if not live:
            log.down()
        copytruncate(log)
        writer.write("b\n")
    assert log.path.read_bytes() == b"\0" * 10_000 + b"b\n"
    if end:
        log.at(".1").rename(log.at(".2"))
        packed(log.path, ".1.gz", gzip)
        log.path.unlink()
    if not live:
        carrier = log.up()
    carrier.settle()
    assert log.lines == ["a"] * 5000 + ["b"]
    assert any("begins with 10000 NULs" in said for said in carrier.said)


@pytest.mark.parametrize(
    "names",
    [
        ["-20261124.gz", "-20261125"],
        ["-20261125-1764000000", "-20261125-1764000001.gz"],
        [".2026-11-24", ".2026-11-25_10"],
        [".10", ".9.gz", ".1"],
    ],
)
def test_rotated_names(log: Log, names: list[str]) -> None:
    for name in names:
        if name.endswith(".gz"):
            log.at(name).write_bytes(gzip.compress(f"{name}\n".encode()))
        else:
            log.write(name, to=str(log.at(name)))
        # Times tell nothing.
        os.utime(log.at(name), (10, 10))
    log.write("now")
    for other in (".swp", "-errors", ".conf", ".1~", "x", ".1.tmp"):
        log.write("no", to=str(log.at(other)))
    log.pass_()
    assert log.lines == [*names, "now"]


def test_a_date_before_the_ending_of_the_name(log: Log) -> None:
    for name in ("app-20261124.log", "app-2026-11-25.log", "app-2.log", "app-x.log"):
        log.write(name, to=str(log.path.with_name(name)))
    log.write("now")
    log.pass_()
    assert log.lines == ["app-20261124.log", "app-2026-11-25.log", "now"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("oldest", ["old", "a", "b", "half"]),
        ("begin", ["a", "b", "half"]),
        ("end", ["half"]),
    ],
)
def test_where_to_begin(log: Log, where: str, expected: list[str]) -> None:
    log.write("old", to=str(log.at(".1")))
    log.write("a", "b")
    with log.path.open("a") as file:
        file.write("ha")
    carrier = log.up(where)
    carrier.carry()
    log.down()
    with log.path.open("a") as file:
        file.write("lf\n")
    log.pass_()
    assert log.lines == expected


@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize("there", [True, False])
def test_beginning_with_an_empty_file(log: Log, where: str, there: bool) -> None:
    log.write("old", to=str(log.at(".1")))
    if there:
        log.path.touch()
    carrier = log.up(where)
    carrier.carry()
    log.write("a")
    # Two rotations before the next look.
    log.at(".1").rename(log.at(".3"))
    log.path.rename(log.at(".2"))
    log.write("b", to=str(log.at(".1")))
    log.write("c")
    carrier.settle()
    assert log.lines == ["a", "b", "c"]


def test_nothing_is_there_yet(log: Log) -> None:
    carrier = log.up()
    carrier.carry()
    log.write("a")
    carrier.carry()
    assert log.lines == ["a"]


def test_a_file_that_vanishes_and_comes_back(log: Log) -> None:
    log.write("a")
    carrier = log.up()
    carrier.carry()
    away = log.path.with_name("away")
    log.path.rename(away)
    carrier.carry()
    away.rename(log.path)
    log.write("b")
    carrier.carry()
    assert log.lines == ["a", "b"]


def test_equal_files(log: Log) -> None:
    # Each day the same few lines.
    for number in range(3):
        log.write("start", "end")
        os.utime(log.path, (1000 + number, 1000 + number))
        if number == 1:
            log.pass_()
        log.at(".1").exists() and log.at(".1").rename(log.at(".2"))
        log.path.rename(log.at(".1"))
    log.write("start", "end")
    log.pass_()
    assert log.lines == ["start", "end"] * 4


def test_a_file_that_may_not_be_read_is_told_of(log: Log, monkeypatch: Any) -> None:
    log.path.mkdir()
    carrier = log.up()
    carrier.carry()
    assert "no regular file" in carrier.said[0]


@pytest.mark.parametrize("live", [True, False])
def test_a_link_to_a_file_that_is_rotated_where_it_is(log: Log, tmp_path: Path, live: bool) -> None:
    # As Kubernetes has them: /var/log/containers/… leads to /var/log/pods/…/0.log
    own = tmp_path / "pods" / "0.log"
    own.parent.mkdir()
    log.path.symlink_to(own)
    log.write("a", "b")
    carrier = log.up()
    carrier.carry()
    if not live:
        carrier.die()
    log.write("c")
    own.rename(f"{own}.20261127-120000")
    log.write("d")
    (carrier if live else log.up()).settle()
    assert log.lines == ["a", "b", "c", "d"]


def test_a_rotated_file_that_may_not_be_read_any_more_holds_up_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write("a")
    carrier = log.up()
    carrier.carry()
    log.path.rename(log.at(".1"))
    opened = os.open

    def refusing(path: Any, *arguments: Any) -> int:
        if path == str(log.at(".1")):
            raise PermissionError(EACCES, os.strerror(EACCES), path)
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refusing)
    log.write("b")
    carrier.settle()
    assert log.lines == ["a", "b"]
    carrier.die()
    log.write("c")
    log.pass_()
    assert log.lines == ["a", "b", "c"]


def test_of_a_damaged_file_that_it_may_have_been_in_it_is_said(log: Log) -> None:
    log.write("a")
    log.pass_()
    log.at(".1.gz").write_bytes(gzip.compress(log.path.read_bytes())[:-5])
    log.path.write_text("another\n")
    with pytest.raises(Gone, match=r"app\.log\.1\.gz: Compressed file ended"):
        log.up()


LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.mark.skipif(LOGROTATE is None, reason="there is no logrotate")
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        "create",
        "nocreate",
        "copytruncate",
        "create\n compress",
        "create\n compress\n delaycompress",
        "copytruncate\n compress",
        "copytruncate\n compress\n delaycompress",
        "create\n dateext\n dateformat -%Y%m%d-%s",
        "copytruncate\n compress\n dateext\n dateformat -%Y%m%d-%s",
        "create\n compresscmd /usr/bin/xz\n compressext .xz\n compress",
        "create\n extension .log\n dateext\n dateformat -%Y%m%d-%s",
    ],
)
def test_logrotate(log: Log, tmp_path: Path, how: str, live: bool) -> None:
    assert LOGROTATE is not None
    config = tmp_path / "rotate.conf"
    config.write_text(f"{log.path} {{\n rotate 20\n size 1\n {how}\n}}\n")
    config.chmod(0o644)
    rotate = [LOGROTATE, "--force", "--state", str(tmp_path / "state"), str(config)]
    carrier = log.up()
    written = []
    for number in range(6):
        log.write(f"{number} a", f"{number} b")
        if live:
            carrier.carry()
        log.write(f"{number} c")
        written += [f"{number} {each}" for each in "abc"]
        subprocess.run(rotate, check=True)
        if "%s" in how and number < 5:
            # Names of the next second.
            for path in [*tmp_path.glob("app.log-*"), *tmp_path.glob("app-*")]:
                path.rename(str(path).replace("-20", f"-{10 + number}", 1))
        if not live and number % 3 == 1:
            log.pass_()
    log.write("end")
    (carrier if live else log.up()).settle()
    assert log.lines == [*written, "end"]
