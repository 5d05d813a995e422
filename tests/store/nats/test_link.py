"""The connection to NATS, where there is none."""

import socket
import struct
from contextlib import ExitStack, closing, suppress
from threading import Thread

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from sockservice.store.nats import link
from sockservice.store.nats.link import NodeLink, Unreachable
from sockservice.store.nats.place import parsed
from tests.conftest import ClosedNumber


def unreachable(monkeypatch: pytest.MonkeyPatch, node: str) -> str:
    """Give why it can't be connected to."""
    monkeypatch.setattr(link, "FIRST", 0.5)
    made = NodeLink(parsed(f"nats://{node}/LINES"))
    try:
        with pytest.raises(Unreachable) as refused:
            made.open()
    finally:
        made.close()
    return str(refused.value)


def test_what_does_not_listen_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, closed_number: ClosedNumber
) -> None:
    number = closed_number(socket.SOCK_STREAM)
    assert unreachable(monkeypatch, f"127.0.0.1:{number}") == "Connection refused"


def test_a_connection_that_breaks_says_less_than_one_before(
    monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    """Over TLS a node says why it refuses us, and its word may be overtaken by the close."""
    listening = socket.create_server(("127.0.0.1", 0))
    broken = []

    def serve() -> None:
        with suppress(OSError):
            peer, _ = listening.accept()
            with peer, peer.makefile("rb") as asked:
                peer.sendall(b"INFO {}\r\n")
                while not asked.readline().startswith(b"PING"):
                    pass
                peer.sendall(b"-ERR 'no certificate'\r\n")
            while True:
                peer, _ = listening.accept()
                peer.sendall(b"INFO {}\r\n")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                broken.append(peer)

    serving = Thread(target=serve)
    serving.start()
    opened.callback(serving.join)
    opened.callback(listening.close)
    opened.callback(listening.shutdown, socket.SHUT_RDWR)
    node = f"127.0.0.1:{listening.getsockname()[1]}"
    assert unreachable(monkeypatch, node) == "no certificate"
    assert broken


def test_what_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        number = silent.getsockname()[1]
        assert unreachable(monkeypatch, f"127.0.0.1:{number}") == "no answer in time"


def test_whatever_keeps_it_from_connecting_anew_it_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = NodeLink(parsed("nats://127.0.0.1:4222/LINES"))
    tried = 0

    async def connect() -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise ZeroDivisionError

    monkeypatch.setattr(made, "_connect", connect)
    monkeypatch.setattr(link, "AGAIN", 0.0)
    try:
        made.call(made._anew())
    finally:
        made.close()
    assert tried == 2
