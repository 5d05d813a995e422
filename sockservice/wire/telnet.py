"""Remove a telnet client's commands from its lines, and answer them.

:class:`Telnet` wraps a :class:`~sockservice.wire.framer.Framer` and has the same
methods. It is a minimal implementation of RFC 854 and RFC 855: every option is
refused. For an end that never enables an option, RFC 1143 amounts to this: answer
WILL with DONT and DO with WONT, each time, and never answer DONT or WONT.

A connection is treated as that of a telnet client only if it is recognized as one,
since a line may hold any byte, including 0xFF. OPENING and FIRST recognize it.
"""

import re

from sockservice.wire.framing import Body, Control, Framing, Lines, Refusal

IAC = b"\xff"
#: The first byte of each command, as a number: the search takes a seventh of the time.
COMMAND = IAC[0]
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

# A client's first WILL or DO is at the start of a line; Ctrl-C and the like send a
# command and DO TIMING-MARK anywhere; a command before a line of plain text that ends
# in CRLF was sent by hand; at the very start almost any command counts.
# Random bytes match OPENING twice in a million lines and FIRST once in five thousand
# connections.
_MARKED = rb"\xff" + _SINGLE + rb"\xff\xfd\x06"
_ASKING = rb"(?<=\n)\xff[\xfb\xfd]" + _OPTIONS
_TYPED = rb"(?<=\n)(?:\xff" + _SINGLE + rb")+[\t\x20-\x7e]{0,1000}"
OPENING = re.compile(_MARKED + rb"|" + _ASKING + rb"|" + _TYPED + rb"\r\n")
# Without DM and BRK, with which MP3 files start.
FIRST = re.compile(rb"\xff(?:[\xec-\xee\xf1\xf4-\xf9]|[\xfb\xfd]" + _OPTIONS + rb")")
# The end of the data, if more bytes could still complete an OPENING.
_UNDECIDED = re.compile(
    rb"(?:\xff(?:[\xfb\xfd]|" + _SINGLE + rb"(?:\xff\xfd?)?)?|" + _TYPED + rb"\r?)\Z"
)

# Consecutive commands of one kind, handled together. An LF, or a byte beyond those
# assigned, is no option: the end of a line is never mistaken for a part of a command.
_ASKED = re.compile(rb"(?:\xff[\xfb\xfd][\x00-\x09\x0b-\xef])+")
_TAKEN_BACK = re.compile(rb"(?:\xff[\xfc\xfe][\x00-\x09\x0b-\xef])+")
_IGNORED = re.compile(rb"(?:\xff[\xec-\xf5\xf7-\xf9])+")
_WONT_MARK, _WILL_MARK = bytes((255, WONT, TIMING_MARK)), bytes((255, WILL, TIMING_MARK))
_REFUSING = bytes.maketrans(bytes((WILL, DO)), bytes((DONT, WONT)))
#: Longest subnegotiation in bytes: those in use have fewer than 100.
SUBNEGOTIATION_LIMIT = 4096
#: Bytes of answers that are sent to a client at once.
_TOLD_LIMIT = 4096


class Telnet(Framing):
    """A framer for a connection that may come from a telnet client.

    `framer` has received all earlier bytes; `first` says that there were none.
    """

    __slots__ = (
        "_active",
        "_at",
        "_before",
        "_first",
        "_framer",
        "_inside",
        "_raw",
        "_return",
        "_skipped",
        "_told",
    )

    stateless = True

    def __init__(self, framer: Framing, *, first: bool) -> None:
        self._framer = framer
        self._first = first
        self._before = b"\n" if framer.startsLine else b"x"  # the byte before _raw
        self._raw = b""
        self._at = 0
        self._return = b""  # a CR that was the last byte
        self._active = False
        self._inside = False  # a subnegotiation
        self._skipped = 0  # bytes of it
        self._told = b""

    @property
    def startsLine(self) -> bool:
        """Whether the next byte received will be the first of a line."""
        rest = self._return or self._inside or self._at < len(self._raw)
        return not rest and self._framer.startsLine

    @property
    def held(self) -> int:
        """Bytes kept."""
        return len(self._raw) + len(self._told) + self._framer.held

    def receive(self, data: bytes) -> None:
        """Keep `data` until it is taken."""
        self._raw = self._raw[self._at :] + data
        self._at = 0
        if not self._active:
            self._watch()

    def take(self, most: int) -> Lines | Refusal | Control | Body | None:
        """Return the next lines, at most `most`, or what to send to the client, or None."""
        while True:
            item = self._framer.take(most)
            if item is not None:
                return item
            if self._told:
                told, self._told = Control(self._told), b""
                return told
            if not (self._active and self._advance()):
                return None

    def finish(self) -> Refusal | None:
        """Return what is wrong with the end of the stream, a truncated command included."""
        rest = self._return + (IAC if self._inside else self._raw[self._at :])
        if rest:
            self._framer.receive(rest)
            self._framer.take(1)
        return self._framer.finish()

    def release(self) -> bytes:
        """Return what was received and not taken yet, and keep it no longer."""
        data, self._raw, self._at = self._raw[self._at :], b"", 0
        return self._framer.release() + data

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the bytes to send; for a telnet client a 0xFF is written twice (RFC 854)."""
        data = self._framer.encode(replies, ending)
        return data.replace(IAC, IAC + IAC) if self._active else data

    def _watch(self) -> None:
        """Pass on what is not from a telnet client; keep what is undecided."""
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
            # From the start of the last line, including the byte before it.
            last = max(0, data.rfind(b"\n", 0, -1))
            undecided = _UNDECIDED.search(self._before + data, last)
            end = len(data) if undecided is None else undecided.start() - 1
        if end:
            self._first = False
            self._before = data[end - 1 : end]
            self._framer.receive(data[:end])
            self._raw = data[end:]

    def _advance(self) -> bool:
        """Pass on the text up to the next answered command; return False if nothing was left."""
        data, at = self._raw, self._at
        text: list[bytes] = []
        start = at
        while at < len(data):
            if self._inside:
                try:
                    at = self._skip(data, at)
                except ValueError:
                    if not (text or self._told):
                        raise
                    break  # first what came before it
                if self._inside:
                    break
                continue
            command = data.find(IAC, at)
            if command != at:
                if self._told:
                    break
                if command < 0:
                    command = len(data)
                text.append(data[at:command])
                at = command
                continue
            taken = self._command(data, at, text)
            if not taken or len(self._told) > _TOLD_LIMIT:
                at += taken
                break
            at += taken
        # What has been processed need not be kept.
        self._raw, self._at = (data, at) if at < len(data) else (b"", 0)
        said = self._return + b"".join(text)
        # The next byte decides what a CR at the end means.
        self._return = b"\r" if said.endswith(b"\r") else b""
        self._framer.receive(said.removesuffix(b"\r").replace(NUL_AFTER_CR, b"\r\n"))
        return at > start

    def _command(self, data: bytes, at: int, text: list[bytes]) -> int:
        """Obey a command, or several of a kind; return their length, 0 if incomplete."""
        if at + 1 == len(data):
            return 0
        name = data[at + 1]
        if name in (WILL, DO):
            found = _ASKED.match(data, at)
            if found is not None:
                self._told += found[0].translate(_REFUSING).replace(_WONT_MARK, _WILL_MARK)
        elif name in (WONT, DONT):
            found = _TAKEN_BACK.match(data, at)
        elif name == AYT:
            self._told += b"[yes]\r\n"
            return 2
        elif name == SB:
            self._inside = True
            self._skipped = 0
            return 2
        else:
            found = _IGNORED.match(data, at)
        if found is not None:
            return len(found[0])
        if name >= WILL and name != IAC[0] and at + 2 == len(data):
            return 0
        # A double IAC is a 0xFF; so is a single one before anything that is no command.
        text.append(IAC)
        return 2 if name == IAC[0] else 1

    def _skip(self, data: bytes, at: int) -> int:
        """Skip a subnegotiation; return the position up to which it is skipped.

        :raises ValueError: It is longer than SUBNEGOTIATION_LIMIT.
        """
        end = data.find(IAC, at)
        passed = len(data) if end < 0 else end
        self._skipped += passed - at
        if self._skipped > SUBNEGOTIATION_LIMIT:
            raise ValueError(f"telnet subnegotiation longer than {SUBNEGOTIATION_LIMIT} bytes")
        if end < 0 or end + 1 == len(data):
            return passed
        if data[end + 1] == SE:
            self._inside = False
        self._skipped += 2
        return end + 2
