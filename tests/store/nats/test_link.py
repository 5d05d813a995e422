"""The connection to NATS, where there is none."""

import socket
from contextlib import closing

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
