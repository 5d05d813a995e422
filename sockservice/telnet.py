"""Take a telnet client's commands out of its lines, and answer them.

:class:`Telnet` stands before a :class:`~sockservice.framing.Framer` and has
the same methods. It is the plain end of RFC 854 and RFC 855: every option
is refused. For an end that never has an option on, RFC 1143 comes down to:
answer WILL with DONT and DO with WONT, each time, and never answer DONT or WONT.

Only a connection that shows itself to be a telnet client's is treated as one,
since a line may hold any byte, 0xFF too. What counts as showing is OPENING.
"""

import re
from typing import NamedTuple

from sockservice.framing import Framer, Lines, Refusal

IAC = b"\xff"
NUL_AFTER_CR = b"\r\0"  # RFC 1123, 3.3.1: from a telnet client the same as CR LF

SE, AYT, SB, WILL, WONT, DO, DONT = 240, 246, 250, 251, 252, 253, 254
TIMING_MARK = 6  # RFC 860

# What telnet clients offer or ask for by themselves: BINARY, ECHO, SUPPRESS-GO-
# AHEAD, STATUS, TIMING-MARK, TERMINAL-TYPE, END-OF-RECORD, NAWS, TERMINAL-SPEED,
# FLOW-CONTROL, LINEMODE, X-DISPLAY, ENVIRON, AUTHENTICATION, ENCRYPT,
# NEW-ENVIRON, CHARSET (IANA, "Telnet Options").
_OPTIONS = rb"[\x00\x01\x03\x05\x06\x18\x19\x1f-\x27\x2a]"
# EOF, SUSP and ABORT (RFC 1184), NOP to GA (RFC 854).
_SINGLE = rb"[\xec-\xee\xf1-\xf9]"

# A client's first WILL or DO stands at the start of a line; Ctrl-C and its like
# send a command and DO TIMING-MARK wherever they are; any command may stand
# first of all. Random bytes match OPENING twice in a million lines and FIRST once
# in five thousand connections.
_MARKED = rb"\xff" + _SINGLE + rb"\xff\xfd\x06"
_ASKING = rb"(?<=\n)\xff[\xfb\xfd]" + _OPTIONS
OPENING = re.compile(_MARKED + rb"|" + _ASKING, re.DOTALL)
FIRST = re.compile(rb"\xff(?:" + _SINGLE + rb"|[\xfb\xfd]" + _OPTIONS + rb")", re.DOTALL)
# The end of what was received, where more bytes could still make an OPENING.
_UNDECIDED = re.compile(rb"\xff(?:[\xfb\xfd]|" + _SINGLE + rb"(?:\xff\xfd?)?)?\Z", re.DOTALL)


class Told(NamedTuple):
    """What to send to the client's telnet, in its place among the replies."""

    data: bytes


class Telnet:
    """A framer for a connection whose bytes may be those of a telnet client.

    `framer` has received all that came before; `first` says that this is nothing.
    """

    __slots__ = ("_active", "_at", "_before", "_first", "_framer", "_inside", "_raw", "_told")

    def __init__(self, framer: Framer, *, first: bool) -> None:
        self._framer = framer
        self._first = first
        self._before = b"\n" if framer.startsLine else b"x"  # the byte before _raw
        self._raw = b""
        self._at = 0
        self._active = False
        self._inside = False  # a subnegotiation
        self._told = b""

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._raw = self._raw[self._at :] + data
        self._at = 0
        if not self._active:
            self._watch()

    def take(self, most: int) -> Lines | Refusal | Told | None:
        """Give the next lines, at most `most`, or what to tell the client, or None."""
        while True:
            item = self._framer.take(most)
            if item is not None:
                return item
            if self._told:
                told, self._told = Told(self._told), b""
                return told
            if not (self._active and self._advance()):
                return None

    def finish(self) -> Refusal | None:
        """Say what is wrong with the end of the stream; a torn command is a torn line."""
        rest = IAC if self._inside else self._raw[self._at :]
        if rest:
            self._framer.receive(rest)
            self._framer.take(1)
        return self._framer.finish()

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Give the bytes to send; for a telnet client a 0xFF is written twice (RFC 854)."""
        data = self._framer.encode(replies, ending)
        return data.replace(IAC, IAC + IAC) if self._active else data

    def _watch(self) -> None:
        """Hand on what is no telnet client's; what is undecided is kept."""
        data = self._raw
        opening = FIRST.match(data) if self._first else None
        if opening is not None:
            self._active = True
            return
        opening = OPENING.search(self._before + data)
        if opening is not None:
            end = opening.start() - 1
            self._active = True
        else:
            undecided = _UNDECIDED.search(data, max(0, len(data) - 4))
            end = len(data) if undecided is None else undecided.start()
        if end:
            self._first = False
            self._before = data[end - 1 : end]
            self._framer.receive(data[:end])
            self._raw = data[end:]

    def _advance(self) -> bool:
        """Hand on the text up to the next command that is answered; False if none was left."""
        data, at, text = self._raw, self._at, []
        start = at
        while at < len(data) and not self._told:
            if self._inside:
                at = self._skip(data, at)
                if self._inside:
                    break
                continue
            command = data.find(IAC, at)
            if command < 0:
                # Its LF or NUL decides what a last CR is.
                command = len(data) - data.endswith(b"\r")
                text.append(data[at:command])
                at = command
                break
            text.append(data[at:command])
            at = command
            length = self._command(data[at : at + 3], text)
            if not length:
                break
            at += length
        self._at = at
        self._framer.receive(b"".join(text).replace(NUL_AFTER_CR, b"\r\n"))
        return at > start

    def _command(self, found: bytes, text: list[bytes]) -> int:
        """Obey one command; say how many bytes it took, 0 when it isn't whole yet."""
        if len(found) < 2:
            return 0
        name = found[1]
        if name == IAC[0]:
            text.append(IAC)
        elif name in (WILL, WONT, DO, DONT):
            if len(found) < 3:
                return 0
            option = found[2]
            if name == WILL:
                self._told = bytes((IAC[0], DONT, option))
            elif name == DO:
                self._told = bytes((IAC[0], WILL if option == TIMING_MARK else WONT, option))
            return 3
        elif name == SB:
            self._inside = True
        elif name == AYT:
            self._told = b"[yes]\r\n"
        return 2

    def _skip(self, data: bytes, at: int) -> int:
        """Pass over a subnegotiation, of any length; say where it is passed."""
        end = data.find(IAC, at)
        if end < 0:
            return len(data)
        if end + 1 == len(data):
            return end
        if data[end + 1] == SE:
            self._inside = False
        return end + 2
