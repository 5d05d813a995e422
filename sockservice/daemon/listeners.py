"""PROTOCOL@ENDPOINT, or a host and a port: the listeners, of which all come up or none."""

import re
import socket

from twisted.application.service import MultiService

from sockservice.daemon.endpoints import Foreign, Opened, opened
from sockservice.daemon.services import BoundListener, HeldListener
from sockservice.daemon.shared import Shared
from sockservice.daemon.wiring import wired
from sockservice.errors import CannotListen
from sockservice.net.bind.inet import pairs

# A name, module.Class or module:Class, then :KEY=VALUE as often as there are settings.
_PROTOCOL = re.compile(r"([A-Za-z_][\w.-]*(?::[A-Za-z_]\w*)?(?::[A-Za-z_]\w*=[^:@]*)*)@")


class Listeners(MultiService):
    """Listeners that come of one description, bound when privileges are still there."""

    _shared: Shared
    _bound = False

    def _add(self, protocol: str, found: Opened | Foreign) -> None:
        listener = wired(self._shared, protocol, found)
        listener.quiet = self._shared.inherited
        if isinstance(found, Opened):
            listener.tls = found.tls
        if self._shared.held:
            if not isinstance(listener, BoundListener):
                raise CannotListen(f"{found.scheme}: this endpoint can't be shared by workers")
            listener = HeldListener(listener)
        listener.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Remember that all is bound."""
        super().privilegedStartService()
        self._bound = True

    def startService(self) -> None:
        """Serve, binding first where that was not asked for (`twist` does not)."""
        if not self._bound:
            self.privilegedStartService()
        super().startService()

    def abandon(self) -> None:
        """Undo the binding, when another listener can't come up."""
        for listener in self:
            listener.abandon()

    @property
    def connections(self) -> int:
        """As a listener's."""
        return sum(listener.connections for listener in self)

    def retire(self) -> None:
        """As a listener's."""
        for listener in self:
            listener.retire()

    def reload(self) -> None:
        """Read files again that may have changed.

        :raises CannotListen: Some are not what they should be; of these all stays as it is.
        """
        problems = []
        for listener in self:
            try:
                listener.reload()
            except CannotListen as problem:
                problems.append(problem)
        if problems:
            raise problems[0]


class HostPort(Listeners):
    """Acknowledge lines over TCP and echo datagrams over UDP on one port number of a host.

    `host` is an address or a name, which stands for all its addresses; `port` 0
    takes a number that is free on all of them.
    """

    def __init__(self, shared: Shared, host: str, port: int) -> None:
        super().__init__()
        self._shared = shared
        self._host = host
        self._port = port

    def privilegedStartService(self) -> None:
        """Bind all sockets.

        :raises CannotListen: Nothing is bound then.
        """
        found = self._shared.ask(lambda: pairs(self._host, self._port))
        try:
            for bound in found:
                stream = bound.socket.type == socket.SOCK_STREAM
                self._add("", Opened(bound, "tcp" if stream else "udp"))
            super().privilegedStartService()
        except CannotListen:
            for bound in found:
                bound.close()
            raise


class Listen(Listeners):
    """Serve what `text` says: `PROTOCOL@ENDPOINT`, or `ENDPOINT` alone."""

    def __init__(self, shared: Shared, text: str) -> None:
        super().__init__()
        self._shared = shared
        said = _PROTOCOL.match(text)
        self._protocol = said[1] if said else ""
        self._endpoint = text[said.end() :] if said else text

    def privilegedStartService(self) -> None:
        """Bind all sockets and find the protocol.

        :raises CannotListen: Nothing is bound then.
        """
        found = opened(self._endpoint, self._shared.reactor, self._shared.ask)
        try:
            for each in found:
                self._add(self._protocol, each)
            super().privilegedStartService()
        except CannotListen:
            for each in found:
                each.close()
            raise
