"""Choose and print stored lines as the syslog messages that they are."""

import json
from collections.abc import Callable
from typing import Any

from sockservice.store.objects import objects
from sockservice.wire.syslogmessage import SEVERITIES, Message


def selection(
    severity: str | None, host: str | None, app: str | None
) -> Callable[[bytes], bool] | None:
    """Return what says whether a line is a message that is wanted; None if all lines are."""
    if severity is None and host is None and app is None:
        return None
    gravest = SEVERITIES[: SEVERITIES.index(severity) + 1] if severity else SEVERITIES

    def chosen(line: bytes) -> bool:
        message = Message.parse(line)
        return (
            message is not None
            and message.severity in gravest
            and host in (None, message.host)
            and app in (None, message.app)
        )

    return chosen


def messages(write: Callable[[list[Any]], bytes], rows: list[Any]) -> bytes:
    """Return rows as `write` does, each message in words."""
    said = []
    for *others, line in rows:
        message = Message.parse(line)
        # What is no UTF-8 is escaped in a message, and must not be in a line.
        said.append((*others, line if message is None else str(message).encode()))
    return write(said)


def messageObjects(rows: list[Any]) -> bytes:
    """Return rows as JSON objects, with what the message says in each that is one."""
    written = []
    for row, text in zip(rows, objects(rows), strict=True):
        message = Message.parse(row[-1])
        if message is not None:
            text = f'{text[:-1]}, "syslog": {json.dumps(message._asdict())}}}'
        written.append(text + "\n")
    return "".join(written).encode()
