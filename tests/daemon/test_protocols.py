"""The protocols that can be named: built-in ones, and classes of one's own."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockservice import DatagramServer, LineServer
from sockservice.server.answers import Answer
from tests.conftest import Log, Running, Serving, received, until

TCP = "tcp:0:interface=127.0.0.1"
UDP = "udp:0:interface=127.0.0.1"
BUILT_IN = "built in are ack, ack-chunks, discard, echo, frames, relp, session, syslog"


class Greeter(LineServer):
    """Serves streams and datagrams, and says what it was told to."""

    datagrams = True

    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    def answer(self, line: bytes) -> Answer:
        return f"{self.greeting} ".encode() + line


class Whose(LineServer):
    datagrams = True

    def answer(self, line: bytes) -> Answer:
        if line == b"close":
            self.close()
        return f"{self.peer} {self.tell(b'told')}".encode()


class Shout(DatagramServer):
    def __init__(self, ending: str = "!", **settings: Any) -> None:
        super().__init__(**settings)
        self.ending = ending.encode()

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        return datagram.upper() + self.ending


class Bare(DatagramServer):
    """Does not know of the settings."""

    def __init__(self) -> None:
        super().__init__()


class StreamsOnly(LineServer):
    def answer(self, line: bytes) -> Answer:
        return line


class Unanswering(LineServer):
    datagrams = True


class Demanding(LineServer):
    def __init__(self, what: str) -> None:
        raise ZeroDivisionError(what)


NO_CLASS = 7


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be in a folder of its own, with the import path and modules as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("protocol", "sent", "replies"),
    [
        ("ack", b"a\nb\r\n", b"ok\nok\r\n"),
        ("echo", b"a\nb\r\n", b"a\nb\r\n"),
        ("discard", b"a\nb\r\n", b""),
        ("ack-chunks", b"cmd", b"ok"),
        ("tests.daemon.test_protocols.Greeter", b"you\n", b"hello you\n"),
        ("tests.daemon.test_protocols:Greeter", b"you\n", b"hello you\n"),
        ("tests.daemon.test_protocols.Greeter:greeting=good day", b"you\n", b"good day you\n"),
        ("tests.daemon.test_protocols:Greeter:greeting=a=b", b"you\n", b"a=b you\n"),
    ],
)
async def test_a_protocol_serves_streams(
    serving: Serving, protocol: str, sent: bytes, replies: bytes
) -> None:
    serving.start("--listen", f"{protocol}@{TCP}")
    [(_, host, port)] = serving.addresses
    assert await serving.ask(host, port, sent) == replies


@pytest.mark.parametrize(
    ("protocol", "reply"),
    [
        ("ack", b"ok"),
        ("echo", b"you\n"),
        ("tests.daemon.test_protocols.Greeter", b"hello you\n"),
        ("tests.daemon.test_protocols.Greeter:greeting=hi", b"hi you\n"),
        ("tests.daemon.test_protocols.Shout", b"YOU\n!"),
        ("tests.daemon.test_protocols:Shout:ending=?", b"YOU\n?"),
    ],
)
async def test_a_protocol_serves_datagrams(serving: Serving, protocol: str, reply: bytes) -> None:
    serving.start("--listen", f"{protocol}@{UDP}")
    [(_, host, port)] = serving.addresses
    asking = serving.asking(host, port)
    asking.send(b"you\n")
    assert await received(asking, len(reply)) == reply


async def test_discarded_datagrams_are_counted_and_not_answered(serving: Serving, log: Log) -> None:
    serving.start("--verbose", "--listen", f"discard@{UDP}")
    [(_, host, port)] = serving.addresses
    asking = serving.asking(host, port)
    asking.send(b"x")
    await until(lambda: [text for text in log.texts if "datagram b'x'" in text])
    asking.setblocking(False)
    with pytest.raises(BlockingIOError):
        asking.recv(1)


async def test_a_line_server_knows_the_peer_of_each_datagram_and_cannot_tell_it_more(
    serving: Serving,
) -> None:
    serving.start("--listen", f"tests.daemon.test_protocols.Whose@{UDP}")
    [(_, host, port)] = serving.addresses
    for line in (b"close", b"a"):
        asking = serving.asking(host, port)
        asking.send(line)
        name, number = asking.getsockname()
        reply = f"{name}:{number} False".encode()
        assert await received(asking, len(reply)) == reply


async def test_a_class_is_found_in_the_current_folder(serving: Serving, folder: Path) -> None:
    (folder / "fresh_shout.py").write_text(
        "from sockservice import LineServer\n"
        "class Shout(LineServer):\n"
        "    def answer(self, line):\n"
        "        return line.upper()\n"
    )
    serving.start("--listen", f"fresh_shout.Shout@{TCP}", "--listen", f"fresh_shout.Shout@{TCP}")
    for _, host, port in serving.addresses:
        assert await serving.ask(host, port, b"a\n") == b"A\n"


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        (
            f"nosuch@{TCP}",
            f"no such protocol: nosuch; {BUILT_IN}; a class is written module.Class",
        ),
        (
            f"nosuch@{UDP}",
            f"no such protocol: nosuch; {BUILT_IN}; a class is written module.Class",
        ),
        (f"frames@{TCP}", "frames is no protocol for streams"),
        (f"frames@{UDP}", "frames is no protocol for datagrams"),
        (f"ack-chunks@{UDP}", "ack-chunks is no protocol for datagrams"),
        (f"nosuch.Class@{TCP}", "no such module: nosuch"),
        (f"tests.nosuch.Class@{TCP}", "no such module: tests.nosuch"),
        (f"broken_one.Class@{TCP}", "importing broken_one failed: ZeroDivisionError: broken"),
        (
            f"missing_one.Class@{TCP}",
            "importing missing_one failed: ModuleNotFoundError: No module named 'nosuch'",
        ),
        (
            f"torn_one.Class@{TCP}",
            "importing torn_one failed: SyntaxError: '(' was never closed (torn_one.py, line 1)",
        ),
        (
            f"tests.daemon.test_protocols.Missing@{TCP}",
            "module tests.daemon.test_protocols has no class Missing",
        ),
        (
            f"tests.daemon.test_protocols.NO_CLASS@{TCP}",
            "tests.daemon.test_protocols.NO_CLASS is neither a LineServer nor a DatagramServer",
        ),
        (
            f"pathlib:Path@{TCP}",
            "pathlib.Path is neither a LineServer nor a DatagramServer",
        ),
        (
            f"tests.daemon.test_protocols.Shout@{TCP}",
            "tests.daemon.test_protocols.Shout is a DatagramServer: it cannot serve a stream "
            "endpoint",
        ),
        (
            f"tests.daemon.test_protocols.StreamsOnly@{UDP}",
            "tests.daemon.test_protocols.StreamsOnly is a LineServer: it cannot serve a datagram "
            "endpoint, unless its class says `datagrams = True`",
        ),
        (
            f"tests.daemon.test_protocols.Unanswering@{UDP}",
            "tests.daemon.test_protocols.Unanswering has no answer(), which datagrams are given to",
        ),
        (
            f"ack:x=1@{TCP}",
            "ack cannot be made: TypeError: Ack() takes no arguments",
        ),
        (
            f"tests.daemon.test_protocols.Demanding:what=it@{TCP}",
            "tests.daemon.test_protocols.Demanding cannot be made: ZeroDivisionError: it",
        ),
        (
            f"tests.daemon.test_protocols.Greeter:wrong=1@{UDP}",
            "tests.daemon.test_protocols.Greeter cannot be made: TypeError: "
            "Greeter.__init__() got an unexpected keyword argument 'wrong'",
        ),
    ],
)
def test_a_protocol_that_cannot_serve_is_told(
    running: Running, folder: Path, listen: str, said: str
) -> None:
    (folder / "broken_one.py").write_text("raise ZeroDivisionError('broken')\n")
    (folder / "missing_one.py").write_text("import nosuch\n")
    (folder / "torn_one.py").write_text("(\n")
    assert running.fail("--listen", listen) == f"--listen {listen}: {said}"
    assert running.addresses == []


def test_a_class_that_does_not_know_the_settings_is_told(running: Running) -> None:
    name = "tests.daemon.test_protocols.Bare"
    said = running.fail("--listen", f"{name}@{UDP}")
    assert said.startswith(f"--listen {name}@{UDP}: {name} cannot be made: TypeError: ")


def test_a_module_that_ends_the_process_is_told(running: Running, folder: Path) -> None:
    (folder / "ending_one.py").write_text("import sys\nsys.exit('not for import')\n")
    said = running.fail("--listen", f"ending_one.Class@{TCP}")
    why = "importing ending_one failed: SystemExit: not for import"
    assert said == f"--listen ending_one.Class@{TCP}: {why}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("1x=2", "1x=2 is not NAME=VALUE for the protocol ack"),
        ("a=1:b", "b is not NAME=VALUE for the protocol ack"),
    ],
)
def test_a_setting_without_a_name_or_value_is_told(setting: str, said: str) -> None:
    from sockservice.daemon.protocols import streamProtocol
    from sockservice.errors import CannotListen

    with pytest.raises(CannotListen) as problem:
        streamProtocol(f"ack:{setting}")
    assert str(problem.value) == said


def test_a_protocol_for_raw_frames_is_built_in(running: Running) -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except PermissionError:
        pytest.skip("a packet socket needs root or CAP_NET_RAW")
    said = running.fail("--listen", "ack@raw:lo")
    assert said == "--listen ack@raw:lo: ack is no protocol for raw frames"
