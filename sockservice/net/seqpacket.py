"""The transport of UNIX sockets of type SOCK_SEQPACKET, which preserves packets."""

from collections import deque
from typing import Any

from twisted.internet import main
from twisted.internet.unix import Server

#: Longest packet in bytes; more than Linux sends by default (net.core.wmem_default).
LONGEST = 1024 * 1024


class PacketServer(Server):
    """Twisted's server transport for UNIX sockets, for packets.

    `dataReceived` gets one packet, `write` sends one. A packet longer than LONGEST
    is truncated.
    """

    producer: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._packets: deque[bytes] = deque()
        self._queued = 0  # bytes

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(LONGEST)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        return self._dataReceived(data)

    def write(self, data: bytes) -> None:
        if not (self.connected and data):
            return
        self._packets.append(data)
        self._queued += len(data)
        self.startWriting()
        watched = self.producer is not None and self.streamingProducer
        if watched and self._queued > self.bufferSize and not self.producerPaused:
            self.producerPaused = True
            self.producer.pauseProducing()

    def doWrite(self) -> Any:
        while self._packets:
            try:
                self.socket.send(self._packets[0])
            except BlockingIOError:
                return None
            except OSError as problem:
                # Unchanged, for it may say that the packet is too long.
                return problem
            self._queued -= len(self._packets.popleft())
        # Nothing is left: whatever the transport does then.
        return super().doWrite()

    def writeSomeData(self, data: bytes) -> int:
        # The data is in _packets; this would send an empty packet.
        return 0
