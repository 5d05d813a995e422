"""`--accept-http`, and protocols that need a store, from the command line."""

from pathlib import Path

import pytest

from sockservice import Ack, DatagramServer, LineServer
from sockservice.server.answers import Answer
from tests.conftest import Children, Running


class Keeping(LineServer):
    """Has nothing to say without a store."""

    stores = True
    datagrams = True

    def answer(self, line: bytes) -> Answer:
        return b"kept"


class KeepingDatagrams(DatagramServer):
    """The same for datagrams."""

    stores = True


POST = b"POST / HTTP/1.1\r\nHost: here\r\n\r\nbody\r\n"


def test_a_web_page_gets_nothing_stored_unless_that_is_wanted(running: Running) -> None:
    running.start("--port", "0")
    assert running.ask("127.0.0.1", running.addresses[0][2], POST).startswith(b"error ")
    running.start("--port", "0", "--accept-http")
    assert running.ask("127.0.0.1", running.addresses[-2][2], POST) == b"ok\r\n" * 4


@pytest.mark.parametrize(
    "what",
    [
        f"{__name__}.Keeping@tcp:0:interface=127.0.0.1",
        f"{__name__}.Keeping@udp:0:interface=127.0.0.1",
        f"{__name__}.KeepingDatagrams@udp:0:interface=127.0.0.1",
    ],
)
def test_what_stores_lines_is_refused_without_a_store(running: Running, what: str) -> None:
    name = what.partition("@")[0]
    assert (
        running.fail("--listen", what) == f"--listen {what}: {name} stores lines: it needs --store"
    )


def test_what_stores_lines_is_served_with_one(children: Children, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sockservice import Ack\n\n\nclass Mine(Ack):\n    stores = True\n"
    )
    assert not Ack.stores
    listen = ("--listen", "mine.Mine@unix:s", "--host", "127.0.0.1")
    done = children.run("twistd", "-n", "--pidfile=", "sockservice", "--port", "0", *listen)
    assert (done.returncode, done.stderr) == (
        1,
        b"sockservice: --listen mine.Mine@unix:s: mine.Mine stores lines: it needs --store\n",
    )
    children.serve(*listen, "--store", "sqlite:lines.db").stop()
