"""Messages on stderr, and bytes from elsewhere escaped for a terminal."""

import click

from sockservice.cli.output import discard
from sockservice.wire import escaping


def tell(line: str) -> None:
    """Write `line` to stderr, escaped, if that is open."""
    try:
        click.echo(escaping.printable(line), err=True)
    except BlockingIOError:
        pass  # its reader may go on
    except OSError:
        discard(2)


def printable(line: bytes) -> bytes:
    """Escape control characters; other text in UTF-8 stays as it is."""
    return escaping.printable(line.decode("utf-8", "backslashreplace")).encode()
