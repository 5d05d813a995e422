"""Read the header of a syslog message, in the form of RFC 5424 or of RFC 3164."""

import re
from typing import Any, NamedTuple, Self

#: By their codes (RFC 5424, 6.2.1), with the names that logger(1) knows, where it has one.
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)
#: By their codes, the gravest first.
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

_PRIORITY = re.compile(r"<(0|[1-9][0-9]{0,2})>")
_HEADER = re.compile(
    r"[1-9][0-9]{0,2} (?P<time>\S+) (?P<host>\S{1,255}) (?P<app>\S{1,48}) (?P<procid>\S{1,128}) "
    r'(?P<msgid>\S{1,32}) (?P<data>-|(?:\[[^ =\]"]+(?: [^ =\]"]+="(?:[^"\\\]]|\\.)*")*\])+)'
    r"(?: (?P<text>.*))?",
    re.DOTALL,
)
_ELEMENT = re.compile(r'\[([^ =\]"]+)((?: [^ =\]"]+="(?:[^"\\\]]|\\.)*")*)\]', re.DOTALL)
_PARAMETER = re.compile(r' ([^ =\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
#: The time of RFC 3164, or that which rsyslog writes in its place.
_TIME = re.compile(
    r"([A-Z][a-z]{2} [ 0-3]?[0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2}))"
    r" "
)
_HOST = re.compile(r"([^\s\[]*[^\s\[:]) ")
_TAG = re.compile(r"([^\s\[\]:]{1,128})(?:\[([^\]\s]{0,128})\])?(?::|(?= )|$) ?")


class Message(NamedTuple):
    """A syslog message, taken apart; what it does not say is None."""

    facility: str
    severity: str
    #: As it was sent: that of RFC 3164 names neither year nor zone.
    time: str | None
    host: str | None
    app: str | None
    procid: str | None
    msgid: str | None
    #: Structured data: the values by name by element; a list where a name is there twice.
    data: dict[str, dict[str, Any]]
    text: str

    @classmethod
    def parse(cls, line: bytes) -> Self | None:
        """Return what `line` says, or None if it has no priority and so is no syslog message."""
        said = line.decode("utf-8", "backslashreplace")
        priority = _PRIORITY.match(said)
        if priority is None or int(priority[1]) > 191:
            return None
        facility, severity = divmod(int(priority[1]), 8)
        header = _HEADER.fullmatch(said, priority.end())
        if header is None:
            rest = _old(said, priority.end())
        else:
            values = [
                None if header[key] == "-" else header[key]
                for key in ("time", "host", "app", "procid", "msgid")
            ]
            # The byte order mark tells that it is UTF-8 (6.4).
            text = (header["text"] or "").removeprefix("\ufeff")
            rest = (*values, _elements(header["data"]), text)
        return cls(FACILITIES[facility], SEVERITIES[severity], *rest)

    def __str__(self) -> str:
        app = (self.app or "-") + (f"[{self.procid}]" if self.procid else "")
        head = f"{self.time or '-'} {self.host or '-'} {app}"
        return f"{head} {self.facility}.{self.severity}: {self.text}"


def _old(said: str, at: int) -> tuple[Any, ...]:
    """Return time, host, app and so on of the form of RFC 3164, as far as they are there."""
    time = _TIME.match(said, at)
    if time is None:
        return None, None, None, None, None, {}, said[at:]
    at = time.end()
    # Local programs name no host: what ends in a colon, or in a number in brackets, is the tag.
    host = _HOST.match(said, at)
    if host is not None:
        at = host.end()
    tag = _TAG.match(said, at)
    if tag is not None:
        at = tag.end()
    app, procid = (None, None) if tag is None else (tag[1], tag[2] or None)
    return time[1], host and host[1], app, procid, None, {}, said[at:]


def _elements(data: str) -> dict[str, dict[str, Any]]:
    elements: dict[str, dict[str, Any]] = {}
    for name, parameters in _ELEMENT.findall(data):
        values = elements.setdefault(name, {})
        for key, value in _PARAMETER.findall(parameters):
            value = re.sub(r'\\(["\\\]])', r"\1", value)
            if key not in values:
                values[key] = value
            elif isinstance(values[key], list):
                values[key].append(value)
            else:
                values[key] = [values[key], value]
    return elements
