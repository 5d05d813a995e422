"""A service with a status page, in the reactor that is turned by hand, and requests to it."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from tests.conftest import HandReactor, Running


class Answered(NamedTuple):
    """A response, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


def parsed(received: bytes) -> Answered:
    """Take apart what a server has sent before it closed."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answered(int(first.split(" ")[1]), headers, body)


class Served:
    """A service whose status page is asked over real sockets."""

    def __init__(self, running: Running, *options: str) -> None:
        self._running = running
        self.reactor: HandReactor = running.reactor
        self.service: Any = running.start(
            "--port", "0", "--status", "tcp:0:interface=127.0.0.1", *options
        )
        (self.lines, self.at) = (running.addresses[0], running.addresses[-1])

    def sent(self, request: bytes, *, halfCloses: bool = False) -> bytes:
        """Send a request; give all that comes until the server closes."""
        peer = self.peer()
        peer.setblocking(False)
        sending = memoryview(request)
        received = bytearray()
        ended = False

        def come() -> bool:
            nonlocal sending, ended
            if sending:
                with suppress(BlockingIOError, BrokenPipeError):
                    sending = sending[peer.send(sending) :]
                if not sending and halfCloses:
                    peer.shutdown(socket.SHUT_WR)
            with suppress(BlockingIOError):
                piece = peer.recv(1_000_000)
                received.extend(piece)
                ended = not piece
            return ended

        self.reactor.until(come)
        peer.close()
        return bytes(received)

    def get(self, path: str, *headers: str, method: str = "GET") -> Answered:
        """Ask for a path, as a client does that closes then."""
        lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers]
        if not any(each.lower().startswith("host:") for each in headers):
            lines.insert(1, f"Host: 127.0.0.1:{self.at[2]}")
        return parsed(self.sent("\r\n".join([*lines, "", ""]).encode()))

    def state(self) -> dict[str, Any]:
        """Give what /status.json says, a second later."""
        self.reactor.advance(1)
        found: dict[str, Any] = json.loads(self.get("/status.json").body)
        return found

    def ask(self, lines: bytes) -> bytes:
        """Send lines to the service itself; give the replies."""
        return self._running.ask(*self.lines[1:], lines)

    def peer(self) -> Any:
        """Connect to the status page."""
        return self._running.peer(*self.at[1:])


@pytest.fixture
def serve(running: Running) -> Iterator[Callable[..., Served]]:
    yield lambda *options: Served(running, *options)


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()
