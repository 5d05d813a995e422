"""Stock Twisted over TLS: the certificate and its key are in the file it is given."""

import sys

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorSSL
from twisted.internet.protocol import ServerFactory
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from benchmarks.peers.announcing import announce
from benchmarks.peers.stock import Ack

if __name__ == "__main__":
    factory = ServerFactory()
    factory.protocol = Ack
    context = DefaultOpenSSLContextFactory(sys.argv[1], sys.argv[1])
    announce(IReactorSSL(reactor).listenSSL(0, factory, context, interface="127.0.0.1"))
    reactor.run()
