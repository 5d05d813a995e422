"""Stock Twisted over UDP: a `DatagramProtocol` that sends every datagram back."""

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorUDP, IUDPTransport
from twisted.internet.protocol import DatagramProtocol

from benchmarks.peers.announcing import announce


class Echo(DatagramProtocol):
    transport: IUDPTransport

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.transport.write(datagram, addr)


if __name__ == "__main__":
    udp = IReactorUDP(reactor)
    announce(udp.listenUDP(0, Echo(), interface="127.0.0.1", maxPacketSize=65536))
    reactor.run()
