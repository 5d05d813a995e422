"""Stock Twisted over TLS: the certificate and its key are in the file it is given."""

import sys

from twisted.internet import reactor, ssl
from twisted.internet.protocol import ServerFactory

from benchmarks.peers.announcing import announce
from benchmarks.peers.stock import Ack

if __name__ == "__main__":
    factory = ServerFactory()
    factory.protocol = Ack
    context = ssl.DefaultOpenSSLContextFactory(sys.argv[1], sys.argv[1])
    announce(reactor.listenSSL(0, factory, context, interface="127.0.0.1"))
    reactor.run()
