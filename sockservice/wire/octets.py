"""The client's side of syslog over a stream: frames counted in octets, and no replies."""

from sockservice.wire.framer import Framer


class OctetCounted(Framer):
    """Frames each line as `LENGTH SP MESSAGE` (RFC 6587, 3.4.1).

    Nothing answers it; the lines that come all the same are the server's last words.
    """

    __slots__ = ()

    mute = True

    def encode(self, replies: list[bytes], ending: bytes) -> bytes:
        """Return the frames of messages; an empty one has none."""
        return b"".join(b"%d %b" % (len(line), line) for line in replies if line)
