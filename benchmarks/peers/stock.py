"""Stock Twisted over TCP: a `LineOnlyReceiver` that answers `ok` to every line."""

from twisted.internet import reactor
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver

from benchmarks.peers.announcing import announce


class Ack(LineOnlyReceiver):
    transport: ITCPTransport
    delimiter = b"\n"
    # As long as the longest of ours.
    MAX_LENGTH = 65536

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"ok")


def serve(protocol: type[LineOnlyReceiver]) -> None:
    factory = ServerFactory()
    factory.protocol = protocol
    announce(reactor.listenTCP(0, factory, interface="127.0.0.1"))
    reactor.run()


if __name__ == "__main__":
    serve(Ack)
