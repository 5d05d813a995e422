"""The connection to NATS, where there is none."""

import socket
from contextlib import closing

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from sockservice.store.nats import link
from sockservice.store.nats.link import NodeLink, Unreachable
from sockservice.store.nats.place import parsed
from tests.conftest import closed_number


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


def test_what_does_not_listen_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    number = closed_number(socket.SOCK_STREAM)
    assert unreachable(monkeypatch, f"127.0.0.1:{number}") == "Connection refused"


def test_what_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        number = silent.getsockname()[1]
        assert unreachable(monkeypatch, f"127.0.0.1:{number}") == "no answer in time"
