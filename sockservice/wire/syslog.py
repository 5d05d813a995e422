"""Split syslog over a stream into messages, in both framings of RFC 6587, frame by frame."""

import re

from sockservice.wire.buffered import Buffered
from sockservice.wire.framing import LF, Lines, Refusal, overlong

_COUNT = re.compile(rb"[1-9][0-9]{0,5} ")
_BEGUN = re.compile(rb"[1-9][0-9]{0,5}")
#: What may stand between frames, and is part of none.
_BETWEEN = re.compile(rb"[\r\n\0]*")


class SyslogFraming(Buffered):
    """Splits one stream into syslog messages.

    A frame that begins with a digit is counted in octets, `LENGTH SP MESSAGE` (RFC 6587, 3.4.1
    and RFC 5425, 4.3), one LF at its end removed, which syslog-ng counts. One that begins with
    `<` goes up to an LF (3.4.2), a CR or NUL before it removed. A message that is too long is
    dropped as it arrives. Syslog has no replies: what ends in nothing is not sent, and only
    last words end in LF.
    """

    __slots__ = ("_counted", "_dropping", "_searched")

    stateless = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._dropping = False
        self._counted = 0  # bytes to come of what is dropped, if they are known
        self._searched = 0  # bytes known to hold no LF

    @property
    def startsLine(self) -> bool:
        return not (self.buffer or self._dropping)

    def take(self, most: int) -> Lines | Refusal | None:
        """Return the next messages, or a refusal of one.

        :raises ValueError: It is no syslog, or it can't be known where the next frame begins.
        """
        if self._dropping:
            return self._drop()
        data = self.buffer
        lines: list[bytes] = []
        at = 0
        while len(lines) < most:
            at = _BETWEEN.match(data, at).end()  # type: ignore[union-attr]  # always matches
            if at == len(data):
                break
            if data[at] == 0x3C:  # <
                end = data.find(LF, max(at, self._searched))
                length = (len(data) if end < 0 else end) - at
                if length > self.limit + 2:
                    if not lines:
                        del data[:at]
                        self._dropping, self._searched = True, 0
                        return self._drop()
                    break
                if end < 0:
                    self._searched = len(data)
                    break
                self._searched = 0
                message = bytes(data[at:end]).rstrip(b"\r\0")
                if len(message) > self.limit:
                    if not lines:
                        del data[: end + 1]
                        return self._refusal()
                    break
                at = end + 1
            else:
                count = _COUNT.match(data, at)
                if count is None:
                    begun = _BEGUN.fullmatch(data, at)
                    if lines or begun:
                        break
                    raise ValueError("not syslog: a frame begins with < or a length")
                length = int(count[0])
                if length > self.limit:
                    if not lines:
                        del data[: count.end()]
                        self._dropping, self._counted = True, length
                        return self._drop()
                    break
                end = count.end() + length
                if end > len(data):
                    break
                message = bytes(data[count.end() : end]).removesuffix(LF)
                at = end
            lines.append(message)
        if at:
            del data[:at]
            self._searched = max(0, self._searched - at)
        return Lines(lines, b"") if lines else None

    def finish(self) -> Refusal | None:
        """Return, once everything was taken, what is wrong with the end of the stream."""
        return None if self.startsLine else Refusal(b"unterminated syslog frame", LF)

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return last words; there are no replies."""
        return b"".join(reply + LF for reply in replies) if ending else b""

    def _refusal(self) -> Refusal:
        return overlong(self.limit, b"")

    def _drop(self) -> Refusal | None:
        data = self.buffer
        if self._counted:
            dropped = min(self._counted, len(data))
            self._counted -= dropped
            del data[:dropped]
            if self._counted:
                return None
        else:
            end = data.find(LF)
            del data[: len(data) if end < 0 else end + 1]
            if end < 0:
                return None
        self._dropping = False
        return self._refusal()
