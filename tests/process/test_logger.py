"""logger(1) in all its modes, Python's SysLogHandler, and journald: their messages are stored."""

import logging.handlers
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sockservice.wire.syslogmessage import Message
from tests.conftest import SCRIPTS, Child, Children
from tests.process.test_compatibility import program
from tests.process.test_workers import until
from tests.soak.syslogged import WAYS as WAYS_OF_SYSLOG
from tests.soak.syslogged import fenced


class Collector:
    """The service, listening for syslog on TCP, UDP and both kinds of UNIX sockets."""

    def __init__(self, children: Children) -> None:
        folder = children.folder
        self._store = folder / "logs.db"
        options = [
            "--listen=syslog@tcp:0:interface=127.0.0.1",
            "--listen=syslog@udp:0:interface=127.0.0.1",
            f"--listen=syslog@unix:{folder / 'stream'}",
            f"--listen=syslog@unix-datagram:{folder / 'log'}",
        ]
        store = f"sqlite:{self._store}"
        child = Child(
            children.start("twistd", "-n", "--pidfile=", "sockservice", "--store", store, *options)
        )
        tcp = child.until(rb"syslog listening on tcp:127.0.0.1:(\d+)\n")[1].decode()
        udp = child.until(rb"syslog listening on udp:127.0.0.1:(\d+)\n")[1].decode()
        child.until(rb"syslog listening on unix-datagram:")
        self.udp = ("127.0.0.1", int(udp))
        self.ways = {
            "tcp": ("--server", "127.0.0.1", "--port", tcp, "--tcp"),
            "udp": ("-n", "127.0.0.1", "-P", udp, "-d"),
            "stream": ("-u", str(folder / "stream")),
            "datagram": ("-u", str(folder / "log")),
        }
        self._seen = 0

    def next(self, count: int = 1) -> list[bytes]:
        """Wait for the next messages; give them."""
        lines: list[bytes] = []

        def come() -> bool:
            with closing(sqlite3.connect(self._store)) as base:
                rows = base.execute("SELECT line FROM lines WHERE id > ?", (self._seen,))
                lines[:] = [line for (line,) in rows]
            return len(lines) >= count

        until(come)
        self._seen += count
        assert len(lines) == count
        return lines


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with ExitStack() as stack:
        yield Collector(Children(tmp_path_factory.mktemp("logger"), stack))


def logger(*options: str, said: bytes | None = None) -> None:
    done = subprocess.run(
        [program("logger"), *options], input=said, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


WAYS = ("tcp", "udp", "stream", "datagram")
FORMS = {
    "none": (),
    "3164": ("--rfc3164",),
    "5424": ("--rfc5424",),
    "short": ("--rfc5424=notime,notq,nohost",),
    "data": ("--rfc5424", "--sd-id=app@32473", "--sd-param", 'key="a b"', "--msgid=M1"),
    "pid": ("-i",),
    "id": ("--id=4711",),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_a_message_of_logger_is_stored_and_understood(
    collector: Collector, way: str, form: str
) -> None:
    # Its own default for servers; for sockets it has an older one.
    options = FORMS[form]
    logger(*collector.ways[way], "-p", "local3.err", "-t", "backup", *options, "the disk is full")
    [line] = collector.next()
    message = Message.parse(line)
    assert message is not None
    assert (message.facility, message.severity) == ("local3", "err")
    assert (message.app, message.text) == ("backup", "the disk is full")
    if form == "id":
        assert message.procid == "4711"
    if form == "pid":
        assert message.procid is not None and message.procid.isdigit()
    if form == "data":
        assert message.msgid == "M1"
        assert message.data["app@32473"] == {"key": "a b"}


@pytest.mark.parametrize("way", ["tcp", "stream"])
def test_a_counted_message_of_logger_is_stored_and_understood(
    collector: Collector, way: str
) -> None:
    logger(*collector.ways[way], "-T", "--octet-count", "-t", "backup", "the disk is full")
    [line] = collector.next()
    message = Message.parse(line)
    assert message is not None and message.text == "the disk is full"


@pytest.mark.parametrize("way", ["udp", "datagram"])
def test_a_count_in_a_datagram_is_part_of_what_is_stored(collector: Collector, way: str) -> None:
    logger(*collector.ways[way], "--octet-count", "-t", "backup", "the disk is full")
    [line] = collector.next()
    assert re.match(rb"\d+ <13>", line)
    assert Message.parse(line) is None


@pytest.mark.parametrize(
    ("way", "octets"),
    [*((way, ()) for way in WAYS), *((way, ("-T", "--octet-count")) for way in ("tcp", "stream"))],
)
def test_a_file_of_messages_and_long_ones_are_stored(
    collector: Collector, tmp_path: Path, way: str, octets: tuple[str, ...]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one\ntwo\n" + b"x" * 3000 + b"\n")
    logger(*collector.ways[way], *octets, "--size", "4000", "-f", str(file))
    texts = []
    for line in collector.next(3):
        message = Message.parse(line)
        assert message is not None
        texts.append(message.text)
    assert texts == ["one", "two", "x" * 3000]


def test_what_is_longer_than_size_logger_makes_several_messages_of(collector: Collector) -> None:
    logger(*collector.ways["tcp"], "--size", "20", said=b"a" * 30 + b"\n")
    messages = [Message.parse(line) for line in collector.next(2)]
    assert [each.text for each in messages if each] == ["a" * 20, "a" * 10]


@pytest.mark.parametrize("way", ["udp", "datagram"])
def test_what_python_logs_is_stored_without_its_nul(collector: Collector, way: str) -> None:
    address = collector.udp if way == "udp" else collector.ways[way][1]
    with closing(logging.handlers.SysLogHandler(address)) as handler:
        handler.emit(logging.makeLogRecord({"msg": "app: hello", "levelno": logging.ERROR}))
    assert collector.next() == [b"<12>app: hello"]


JOURNALD = "/lib/systemd/systemd-journald"
# A journal of its own, and what forwards it, until two messages are stored.
FORWARDED = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d
cp journald.conf /run/systemd/journald.conf.d/forward.conf
"$@" >/dev/null 2>&1 &
forwards=$!
trap 'kill $journald $forwards; wait' EXIT
JOURNALD >/dev/null 2>&1 &
journald=$!
while ! [ -S /run/systemd/journal/dev-log ] || ! ls READY >/dev/null 2>&1; do :; done
logger -u /run/systemd/journal/dev-log -t backup -p daemon.err 'the disk is full'
echo 'from a unit' | systemd-cat -t unit -p warning
while [ "$(sockservice lines logs.db | grep -c -e 'is full' -e 'from a unit')" -lt 2 ]; do :; done
"""
PAGE = Path(__file__).parents[2] / "docs" / "syslog.md"


def forwarded(folder: Path, ready: str, *command: str) -> None:
    """Have `command` forward two messages of a journal; skip where there can be none."""
    if os.geteuid() or not Path(JOURNALD).exists():
        pytest.skip("journald not here, or not for this user")
    for each in ("logger", "systemd-cat", "unshare"):
        program(each)
    [configured] = re.findall(r"```ini\n(# journald\.conf\n.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "journald.conf").write_text(configured)
    script = FORWARDED.replace("JOURNALD", JOURNALD).replace("READY", ready)
    done = subprocess.run(
        ["unshare", "--mount", "timeout", "60", "bash", "-c", script, "bash", *command],
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        cwd=folder,
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(sqlite3.connect(folder / "logs.db")) as base:
        messages = [Message.parse(line) for (line,) in base.execute("SELECT line FROM lines")]
    assert [
        (each.severity, each.text) for each in messages if each and each.app in ("backup", "unit")
    ] == [("err", "the disk is full"), ("warning", "from a unit")]


SERVICE = ("twistd", "-n", "--pidfile=", "sockservice", "--store", "sqlite:logs.db")


def test_what_journald_forwards_is_stored(children: Children, elsewhere: None) -> None:
    [listener] = re.findall(r"--listen (syslog@unix-datagram:/run\S+)", PAGE.read_text())
    socket = listener.partition(":")[2]
    forwarded(children.folder, socket, *SERVICE, "--listen", listener)


def test_what_rsyslog_reads_of_the_journal_is_stored(children: Children, elsewhere: None) -> None:
    if WAYS_OF_SYSLOG["omrelp"].missing or not any(Path("/usr/lib").glob("*/rsyslog/imjournal.so")):
        pytest.skip("rsyslog's imjournal or omrelp not here")
    service = Child(children.start(*SERVICE, "--listen", "relp@tcp:0:interface=127.0.0.1"))
    port = service.until(rb"relp listening on tcp:127.0.0.1:(\d+)\n")[1].decode()
    [journal] = [each for each in fenced("rsyslog") if "imjournal" in each]
    sends = WAYS_OF_SYSLOG["omrelp"].configured.replace("2514", port)
    file = children.folder / "rsyslog.conf"
    file.write_text(f'global(workDirectory="{children.folder}")\n{journal}{sends}')
    rsyslog = program("rsyslogd")
    # It gives up if there is no journal yet.
    begun = "until ls /run/log/journal/*/system.journal; do :; done"
    started = f"{begun}; exec {rsyslog} -n -f {file} -i {children.folder / 'pid'}"
    forwarded(children.folder, "pid", "bash", "-c", started)
