"""Messages on stderr, and bytes from elsewhere escaped for a terminal."""

from contextlib import suppress

import click

from sockservice.wire import escaping


def tell(line: str) -> None:
    """Write `line` to stderr, escaped, if that is open."""
    with suppress(OSError):
        click.echo(escaping.printable(line), err=True)


def printable(line: bytes) -> bytes:
    """Escape control characters; other text in UTF-8 stays as it is."""
    return escaping.printable(line.decode("utf-8", "backslashreplace")).encode()
