"""A twistd plugin whose service does nothing but say that the reactor runs."""

from twisted.application.service import MultiService
from twisted.python import usage


class Options(usage.Options):
    pass


def makeService(options: Options) -> MultiService:
    from twisted.internet import reactor

    reactor.callWhenRunning(print, "listening on 127.0.0.1:0", flush=True)
    return MultiService()
