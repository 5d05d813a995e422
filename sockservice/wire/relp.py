"""Split RELP, syslog with acknowledgements, into messages and number the replies.

The framing is that of librelp's doc/relp.html, version 0 of the protocol: `TXNR SP COMMAND SP
DATALEN [SP DATA] LF`, transaction numbers from 1 to 999999999 and round again. Where librelp
and that text differ, both are understood, and what librelp understands is sent.
"""

import re

from sockservice.wire.buffered import Buffered
from sockservice.wire.framing import LF, Control, Lines, Refusal, overlong

#: The beginning of a frame, up to its data; and the beginning of that.
HEADER = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
BEGUN = re.compile(rb"[0-9]{1,9}(?: (?:[A-Za-z]{1,32}(?: [0-9]{0,9})?)?)?")
#: Bytes of data of an `open` or another command, at most: those of librelp are about 100.
_COMMAND = 4096
_MOST = 999_999_999

_OFFERS = b"200 OK\nrelp_version=0\nrelp_software=sockservice\ncommands=syslog"


def following(number: int) -> int:
    """Return the transaction number behind `number`."""
    return 1 if number == _MOST else number + 1


def _response(number: int, data: bytes) -> bytes:
    return b"%d rsp %d %b\n" % (number, len(data), data)


class RelpFraming(Buffered):
    """Splits one RELP stream into the messages of its `syslog` commands.

    The `ending` of messages is the transaction number of the first, in digits: a reply `ok`
    becomes its `200 OK`, any other `500` and the text, which tells the sender to forget the
    message. What ends in LF is no reply, and ends the connection: it becomes a `serverclose`.
    """

    __slots__ = ("_dropping", "_expected", "_missing", "_opened", "_refused")

    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._opened = False
        self._expected = 1  # transaction number
        self._missing = 0  # bytes until the frame that is begun is whole
        self._dropping = 0  # bytes to come of a message that is too long
        self._refused = b""

    @property
    def startsLine(self) -> bool:
        return not (self.buffer or self._dropping)

    def receive(self, data: bytes) -> None:
        self._missing -= len(data)
        super().receive(data)

    def take(self, most: int) -> Lines | Refusal | Control | None:
        """Return the next messages, a refusal of one, or the answer to another command.

        :raises ValueError: It is no RELP, or not in the order that RELP demands.
        """
        if self._dropping:
            return self._drop()
        lines: list[bytes] = []
        first = self._expected
        at = 0
        item: Lines | Refusal | Control | None = None
        while self._missing <= 0 and at < len(self.buffer) and len(lines) < most:
            header = HEADER.match(self.buffer, at)
            if header is None:
                if not (lines or BEGUN.fullmatch(self.buffer, at)):
                    raise ValueError(
                        "not RELP: a frame begins with a number, a command and a length"
                    )
                break
            if lines and header[2] != b"syslog":
                break
            number, command, length = int(header[1]), header[2], int(header[3])
            begin = header.end() if header[4] == b" " else header.end() - 1
            if header[4] == LF and length:
                raise ValueError("a RELP frame ends before its data")
            if command == b"syslog" and length > self.limit:
                if lines:
                    break
                self._check(number)
                self._dropping, self._refused = length + 1, header[1]
                del self.buffer[:begin]
                return self._drop()
            if command != b"syslog" and length > _COMMAND:
                raise ValueError(f"a RELP command longer than {_COMMAND} bytes")
            end = begin + length
            if end >= len(self.buffer):
                self._missing = end + 1 - len(self.buffer)
                break
            if self.buffer[end] != 10:
                if lines:
                    break
                raise ValueError("a RELP frame that does not end where it says")
            if command != b"syslog":
                item = self._command(number, command, bytes(self.buffer[begin:end]))
                at = end + 1
                break
            if not (self._opened and number == self._expected):
                if lines:
                    break
                self._check(number)
            if end > begin and self.buffer[end - 1] == 10:
                lines.append(bytes(self.buffer[begin : end - 1]))
            else:
                lines.append(bytes(self.buffer[begin:end]))
            self._expected = following(number)
            at = end + 1
        if at:
            del self.buffer[:at]
        return Lines(lines, b"%d" % first) if lines else item

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        return None if self.startsLine else Refusal(b"unterminated RELP frame", LF)

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return responses to messages, or for what ends in LF the end of the connection."""
        if ending == LF:
            text = b" ".join(replies)
            return b"0 serverclose %d %b\n" % (len(text), text)
        number = int(ending)
        frames = []
        for reply in replies:
            data = b"200 OK" if reply == b"ok" else b"500 " + reply.removeprefix(b"error ")
            frames.append(_response(number, data))
            number = following(number)
        return b"".join(frames)

    def _check(self, number: int) -> None:
        if not self._opened:
            raise ValueError("a RELP message before the session is open")
        if number != self._expected:
            raise ValueError(f"RELP transaction {number} where {self._expected} is due")

    def _command(self, number: int, command: bytes, data: bytes) -> Control:
        """Answer what is no message."""
        if number == 0:
            return Control(b"")  # a hint, which wants no answer
        if number != self._expected:
            raise ValueError(f"RELP transaction {number} where {self._expected} is due")
        self._expected = following(number)
        if command == b"open":
            if self._opened:
                raise ValueError("a second open in one RELP session")
            refused = _unwanted(data)
            self._opened = not refused
            answer = _response(number, refused or _OFFERS)
            return Control(answer, last=bool(refused))
        if command == b"close":
            return Control(b"%d rsp 0\n0 serverclose 0\n" % number, last=True)
        answer = _response(number, b"500 unknown command " + command)
        return Control(answer + b"0 serverclose 0\n", last=True)

    def _drop(self) -> Refusal | None:
        """Drop the rest of a message that is too long, and of its frame; refuse it."""
        last = self.buffer[self._dropping - 1 : self._dropping]
        dropped = min(len(self.buffer), self._dropping)
        del self.buffer[:dropped]
        self._dropping -= dropped
        if self._dropping:
            return None
        if last != LF:
            raise ValueError("a RELP frame that does not end where it says")
        self._expected = following(self._expected)
        return overlong(self.limit, self._refused)


def _unwanted(offers: bytes) -> bytes:
    """Return the refusal of what a peer offers, or nothing if it will do."""
    offered = dict(line.partition(b"=")[::2] for line in offers.split(LF))
    if not offered.get(b"relp_version", b"").isdigit():
        return b"500 no relp_version offered"
    if b"syslog" not in offered.get(b"commands", b"").split(b","):
        return b"500 no command syslog offered"
    return b""
