"""For `twistd --python`: an application with no service in it, and no plugin looked for."""

from twisted.application.service import Application
from twisted.internet import reactor

application = Application("bare")
reactor.callWhenRunning(print, "listening on 127.0.0.1:0", flush=True)
