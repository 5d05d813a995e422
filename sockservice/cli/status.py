"""Exit statuses of the commands."""

from typing import NoReturn

from sockservice.cli.text import tell

DONE, NOT_ALL, USAGE, NOT_CONNECTED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130
#: Added to the number of the signal that ended the command.
SIGNALLED = 128


def end(status: int, said: str) -> NoReturn:
    """End the command, with a message on stderr unless it is empty."""
    if said:
        tell(said)
    raise SystemExit(status)
