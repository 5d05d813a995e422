"""Stock Twisted over TCP: a `LineOnlyReceiver` that answers every line in capitals."""

from benchmarks.peers.stock import Ack, serve


class Upper(Ack):
    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line.upper())


if __name__ == "__main__":
    serve(Upper)
