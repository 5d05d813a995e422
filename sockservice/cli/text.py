"""Bytes from elsewhere, made fit for a terminal; and what is told on stderr."""

from contextlib import suppress

import click

from sockservice.wire import escaping


def tell(line: str) -> None:
    """Say `line` on stderr, if anyone is there to hear it."""
    with suppress(OSError):
        click.echo(line, err=True)


def printable(line: bytes) -> bytes:
    """Escape what could command the terminal; text in UTF-8 stays as it is."""
    return escaping.printable(line.decode("utf-8", "backslashreplace")).encode()
