"""Write stored lines as JSON objects, each on one line."""

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from json import JSONEncoder

from sockservice.store.reader import LINE

#: The columns of a :class:`~sockservice.store.reader.Query` for rows that are to be objects.
COLUMNS = f"id, received, peer, listener, {LINE}"

#: These columns of a stored line.
Stored = tuple[int, int, str, str, bytes]


def objects(rows: Iterable[Stored]) -> list[str]:
    """Return rows as JSON objects: the same object for the same row, always."""
    encode = JSONEncoder().encode
    written = []
    # Lines that arrived together have most columns in common; these are encoded once.
    common: tuple[int, str, str] | None = None
    second = -1
    day = columns = ""
    for number, received, peer, listener, line in rows:
        if (received, peer, listener) != common:
            common = received, peer, listener
            # Not through a float, which does not hold the microseconds of today.
            seconds, micros = divmod(received, 1_000_000)
            if seconds != second:
                second = seconds
                day = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
            columns = (
                f'"received": "{day}.{micros:06}Z", "peer": {encode(peer)}, '
                f'"listener": {encode(listener)}'
            )
        try:
            kept = f'"line": {encode(line.decode())}'
        except UnicodeDecodeError:
            kept = f'"line_base64": "{b64encode(line).decode()}"'
        written.append(f'{{"id": {number}, {columns}, {kept}}}')
    return written
