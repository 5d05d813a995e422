"""A subclass of `sockservice.LineServer` with one method, as a user would write it."""

from twisted.internet import reactor

from benchmarks.peers.announcing import announce
from sockservice import LineFactory, LineServer


class Upper(LineServer):
    def answer(self, line: bytes) -> bytes:
        return line.upper()


if __name__ == "__main__":
    announce(reactor.listenTCP(0, LineFactory(reactor, Upper), interface="127.0.0.1"))
    reactor.run()
