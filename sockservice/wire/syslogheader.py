"""Write the header of a syslog message, in the form of RFC 5424."""

import re
from datetime import UTC, datetime

from sockservice.wire.syslogmessage import FACILITIES, SEVERITIES

_APP = re.compile(r"[!-~]{1,48}")
_HOST = re.compile(r"[!-~]{1,255}")


class Heading:
    """The header of messages of one program on one host, without structured data.

    A `host` that can't be in a header is left out.

    :raises ValueError: `app` can't be, or there is no such facility or severity.
    """

    def __init__(self, host: str, *, severity: str, facility: str, app: str) -> None:
        if not _APP.fullmatch(app):
            raise ValueError("a program's name is 1 to 48 printable ASCII characters, no space")
        self._priority = FACILITIES.index(facility) * 8 + SEVERITIES.index(severity)
        self._names = f"{host if _HOST.fullmatch(host) else '-'} {app}"

    def encode(self, seconds: float) -> bytes:
        """Return what stands before the text of a message of a time, in seconds since the epoch."""
        at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
        time = at.replace("+00:00", "Z")
        return f"<{self._priority}>1 {time} {self._names} - - - ".encode()
