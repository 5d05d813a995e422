"""PROTOCOL@ENDPOINT, or a host and a port: the listeners, of which all come up or none."""

import re
import socket
from collections.abc import Sequence

from twisted.application.service import MultiService

from sockservice.daemon.endpoints import BoundEndpoint, Foreign, opened
from sockservice.daemon.services import BoundListener, HeldListener
from sockservice.daemon.shared import Shared
from sockservice.daemon.wiring import wired
from sockservice.errors import CannotListen

# A name, module.Class or module:Class, then :KEY=VALUE as often as there are settings.
_PROTOCOL = re.compile(r"([A-Za-z_][\w.-]*(?::[A-Za-z_]\w*)?(?::[A-Za-z_]\w*=[^:@]*)*)@")


class Listeners(MultiService):
    """Listeners that come of one description, bound when privileges are still there."""

    _shared: Shared
    _bound = False
    _protocol = ""
    _found: Sequence[BoundEndpoint | Foreign] = ()

    def _add(self, protocol: str, found: BoundEndpoint | Foreign) -> None:
        listener = wired(self._shared, protocol, found)
        listener.quiet = self._shared.inherited
        listener.at, listener.protocol = found.at, protocol or found.usual
        if isinstance(found, BoundEndpoint):
            listener.tls = found.tls
        if self._shared.held:
            if not isinstance(listener, BoundListener):
                raise CannotListen(f"{found.scheme}: this endpoint can't be shared by workers")
            listener = HeldListener(listener)
        listener.setServiceParent(self)

    def open(self) -> None:
        """Bind all sockets, as `ask` does, and find the protocol.

        :raises CannotListen: Nothing is bound then.
        """
        self._found = self._find()
        try:
            for each in self._found:
                self._add(self._protocol, each)
        except CannotListen as problem:
            self.close()
            raise self._told(problem) from problem

    def close(self) -> None:
        """Undo what `open` has bound."""
        for each in self._found:
            each.close()

    def privilegedStartService(self) -> None:
        """Open it, while privileges are still there.

        :raises CannotListen: Nothing is bound then.
        """
        self.open()
        try:
            super().privilegedStartService()
        except CannotListen:
            self.close()
            raise
        self._bound = True

    def _find(self) -> Sequence[BoundEndpoint | Foreign]:
        """Bind the sockets."""
        raise NotImplementedError

    def _told(self, problem: CannotListen) -> CannotListen:
        """Return what is told when a protocol can't be served."""
        return problem

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

    def _find(self) -> Sequence[BoundEndpoint | Foreign]:
        found = self._shared.ask(lambda: self._shared.sockets.pairs(self._host, self._port))
        return [
            BoundEndpoint(each, "tcp" if each.socket.type == socket.SOCK_STREAM else "udp")
            for each in found
        ]


class Listen(Listeners):
    """Serve what `text` says: `PROTOCOL@ENDPOINT`, or `ENDPOINT` alone."""

    def __init__(self, shared: Shared, text: str) -> None:
        super().__init__()
        self._shared = shared
        said = _PROTOCOL.match(text)
        self._text = ascii(text)[1:-1]
        self._protocol = said[1] if said else ""
        self._endpoint = text[said.end() :] if said else text
        self._text = text

    def _find(self) -> Sequence[BoundEndpoint | Foreign]:
        shared = self._shared
        return opened(self._endpoint, shared.reactor, shared.ask, shared.sockets)

    def _told(self, problem: CannotListen) -> CannotListen:
        # One of another option says so.
        if str(problem).startswith("--"):
            return problem
        return CannotListen(f"--listen {self._text}: {problem}")
