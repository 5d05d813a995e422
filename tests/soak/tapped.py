"""A relay between a RELP client and a server, which knows what the client was told."""

import re
import socket
from contextlib import suppress
from threading import Thread

FRAME = re.compile(rb"(\d+) ([a-z]+) (\d+)([ \n])")


class Frames:
    """The frames of one direction of a RELP connection."""

    def __init__(self) -> None:
        self._begun = b""

    def come(self, data: bytes) -> list[tuple[int, bytes, bytes]]:
        """Give the numbers, commands and data of the frames that are whole with this."""
        self._begun += data
        frames, at = [], 0
        while (found := FRAME.match(self._begun, at)) is not None:
            begin = found.end() if found[4] == b" " else found.end() - 1
            end = begin + int(found[3])
            if end >= len(self._begun):
                break
            frames.append((int(found[1]), found[2], self._begun[begin:end]))
            at = end + 1
        self._begun = self._begun[at:]
        return frames


class Tap(Thread):
    """Hands on what comes to a port, and remembers the messages that were answered `200 OK`."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._to = port
        self.port: int = self._listening.getsockname()[1]
        #: Messages that a client was told are stored.
        self.acknowledged: set[bytes] = set()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    continue
                Thread(target=self._relay, args=(client, server), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        # Which wakes who accepts; a close alone does not.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        sent: dict[int, bytes] = {}
        with client, server:
            back = Thread(target=self._hand, args=(server, client, sent), daemon=True)
            back.start()
            self._hand(client, server, sent)
            back.join()

    def _hand(self, fro: socket.socket, to: socket.socket, sent: dict[int, bytes]) -> None:
        frames = Frames()
        with suppress(OSError):
            while data := fro.recv(65536):
                for number, command, text in frames.come(data):
                    if command == b"syslog":
                        sent[number] = text.removesuffix(b"\n")
                    elif command == b"rsp" and text == b"200 OK":
                        self.acknowledged.add(sent[number])
                to.sendall(data)
        # A close alone is not seen while the other thread reads.
        for each in (fro, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
