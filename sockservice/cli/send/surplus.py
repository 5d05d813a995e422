"""Datagrams: asked one by one; those that answer none are shown, counted, told at the end."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sockservice.cli.text import printable
from sockservice.client.datagram import DatagramClient
from sockservice.client.question import Surplus

#: Datagrams that are shown.
SHOWN = 3
#: Seconds to wait for them once all are answered: the last reply may come twice.
LINGER = 0.05


def ask(
    client: DatagramClient,
    timeout: float,
    lines: list[bytes],
    answered: Callable[[list[bytes]], None],
) -> Deferred[Any]:
    """Send the one line there is as a datagram; give its reply to `answered`."""
    asked: Deferred[Any] = client.ask(lines[0], timeout)
    return asked.addCallback(lambda reply: answered([reply]))


def lingered(reactor: Any) -> Deferred[None]:
    """Return a Deferred that fires when no more are waited for."""
    return deferLater(reactor, LINGER, lambda: None)


async def shown(client: DatagramClient, say: Callable[[str], None]) -> None:
    """Give the first of them to `say`, until the client is closed."""
    count = 0
    async for datagram in client.datagrams():
        count += 1
        if count <= SHOWN:
            say(f"answers none: {printable(datagram).decode()}")


def counts(client: object) -> dict[str, int]:
    """Return how many came, by kind; for lines, which have no such count, nothing."""
    if not isinstance(client, DatagramClient):
        return {}
    return {str(kind): client.surplusCounts[kind] for kind in Surplus}


def told(said: str, client: object) -> str:
    """Return the last message, `said`, and what came."""
    some = [f"{count} {kind}" for kind, count in counts(client).items() if count]
    told = f"datagrams that answered none: {', '.join(some)}" if some else ""
    return "; ".join(filter(None, (said, told)))
