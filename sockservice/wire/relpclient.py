"""The client's side of RELP: number messages, and match the responses to them.

The protocol is that of :mod:`sockservice.wire.relp`. Messages follow the `open` without
waiting for its response: a server that refuses it refuses them as well.
"""

from sockservice.wire.buffered import Buffered
from sockservice.wire.framing import LF, Farewell, Lines
from sockservice.wire.plurals import counted
from sockservice.wire.relp import BEGUN, HEADER, following

_OFFERS = b"relp_version=0\nrelp_software=sockservice\ncommands=syslog"


def _frame(number: int, command: bytes, data: bytes) -> bytes:
    if not data:
        return b"%d %b 0\n" % (number, command)
    return b"%d %b %d %b\n" % (number, command, len(data), data)


class RelpReplies(Buffered):
    """Frames each line as a `syslog` message, and makes a reply of each response.

    A response `200` becomes `ok`, any other `error` and its text. What ends the session,
    such as a `serverclose`, raises :class:`~sockservice.wire.framing.Farewell`.
    """

    __slots__ = ("_due", "_leaving", "_next", "_opened", "_sent")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._next = 1  # transaction number of the next command
        self._due = 1  # that of the next response
        self._leaving = 0  # that of our `close`, once it is sent
        self._sent = False  # our `open`
        self._opened = False

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the frames of messages, behind an `open` if they are the first."""
        commands = [(b"syslog", line) for line in replies]
        if commands and not self._sent:
            self._sent = True
            commands.insert(0, (b"open", _OFFERS))
        frames = []
        for command, data in commands:
            frames.append(_frame(self._next, command, data))
            self._next = following(self._next)
        return b"".join(frames)

    def goodbye(self) -> bytes:
        if self._leaving or not self._sent:
            return b""
        self._leaving = self._next
        return _frame(self._next, b"close", b"")

    def take(self, most: int) -> Lines | None:
        """Return the replies to the next messages.

        :raises Farewell: The server ends the session, or refuses it.
        :raises ValueError: It is no RELP, or a response to something else than what is due.
        """
        lines: list[bytes] = []
        while self.buffer and len(lines) < most:
            header = HEADER.match(self.buffer)
            if header is None:
                if not lines and not BEGUN.fullmatch(self.buffer):
                    raise ValueError("not RELP: a frame begins with a number, a command, a length")
                break
            number, command, length = int(header[1]), header[2], int(header[3])
            if length > self.limit:
                if lines:
                    break
                raise ValueError(f"a RELP response longer than {counted(self.limit, 'byte')}")
            begin = header.end() if header[4] == b" " else header.end() - 1
            end = begin + length
            if end >= len(self.buffer):
                break
            if lines and (command != b"rsp" or number != self._due):
                break
            if self.buffer[end] != 10:
                raise ValueError("a RELP frame that does not end where it says")
            data = bytes(self.buffer[begin:end])
            del self.buffer[: end + 1]
            if command == b"rsp":
                lines += self._response(number, data)
            elif command == b"serverclose":
                if not self._leaving:
                    raise Farewell(data.decode("utf-8", "backslashreplace"))
            elif number:
                raise ValueError("a RELP command where a response is due")
        return Lines(lines, LF) if lines else None

    def _response(self, number: int, data: bytes) -> list[bytes]:
        if number != self._due:
            raise ValueError(f"a response to RELP transaction {number} where {self._due} is due")
        self._due = following(number)
        if number == self._leaving:
            return []
        code, _, text = data.partition(b" ")
        if not (code.isdigit() and len(code) == 3):
            raise ValueError("a RELP response without a code")
        if not self._opened:
            self._opened = True
            if code != b"200":
                raise Farewell(data.decode("utf-8", "backslashreplace"))
            return []
        if code == b"200":
            return [b"ok"]
        return [b"error " + b" ".join((text or code).split(LF))]
