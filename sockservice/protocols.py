"""The protocols that can be named on the command line: built-in ones, and any class."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sockservice import datagrams, imports
from sockservice.ack import Ack
from sockservice.addresses import named
from sockservice.answers import Answer
from sockservice.datagrams import DatagramServer
from sockservice.factories import LineFactory
from sockservice.framing import Chunks
from sockservice.lines import LineServer
from sockservice.sockets import CannotListen


class EchoLines(LineServer):
    """Send each line back."""

    answerLimit = Ack.answerLimit

    def answers(self, lines: list[bytes]) -> list[Answer]:
        return list(lines)


class DiscardLines(LineServer):
    """Swallow each line, answer nothing (RFC 863)."""

    answerLimit = Ack.answerLimit

    def answers(self, lines: list[bytes]) -> list[Answer]:
        return []


class AckChunks(Ack):
    """Acknowledge each chunk that arrives with a bare `ok`: no line endings either way."""

    framing = Chunks


class AckDatagrams(DatagramServer):
    """Acknowledge each datagram with `ok`: received, or, where there is a store, durable."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        if self.store is None:
            return b"ok"
        return self.keep(datagram, peer).addCallback(lambda _: b"ok")


class DiscardDatagrams(DatagramServer):
    """Swallow each datagram, answer nothing (RFC 863)."""

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        return None


class DatagramLines(DatagramServer):
    """Serve datagrams with a LineServer that can: each datagram is a line."""

    def __init__(self, made: Callable[[], LineServer], **settings: Any) -> None:
        super().__init__(**settings)
        assert self.clock is not None
        server = made()
        # An answer may still be awaited when other peers' datagrams come, and then name its
        # peer. So each datagram is answered by an object of its own, with its peer; all else
        # is one instance's.
        self._view: Any = type(type(server).__name__, (type(server),), {"__slots__": ("peer",)})
        self._state = vars(server)
        server.detached(
            LineFactory(
                self.clock,
                made,
                verbose=self.verbose,
                counters=self.counters,
                store=self.store,
                listener=self.listener,
            )
        )

    def answer(self, datagram: bytes, peer: Any) -> Answer:
        view = object.__new__(self._view)
        view.__dict__ = self._state
        view.peer = named(peer)
        answer: Answer = view.answer(datagram)
        return answer


STREAM: dict[str, Callable[..., LineServer]] = {
    "ack": Ack,
    "ack-chunks": AckChunks,
    "discard": DiscardLines,
    "echo": EchoLines,
}
DATAGRAM: dict[str, Callable[..., DatagramServer]] = {
    "ack": AckDatagrams,
    "discard": DiscardDatagrams,
    "echo": datagrams.Echo,
}


def streamProtocol(text: str) -> Callable[[], LineServer]:
    """Give what makes the protocol `text` names, for a connection.

    :raises CannotListen: It names none that serves streams.
    """
    name, options = _split(text)
    made = STREAM.get(name)
    if made is None:
        if name in DATAGRAM or name == "frames":
            raise CannotListen(f"{name} is no protocol for streams")
        made = _imported(name)
        if not issubclass(made, LineServer):
            raise CannotListen(f"{name} is a DatagramServer: it cannot serve a stream endpoint")
    return _tried(name, made, options)


def datagramProtocol(text: str) -> Callable[..., DatagramServer]:
    """Give what makes the protocol `text` names, for a datagram socket.

    :raises CannotListen: It names none that serves datagrams.
    """
    name, options = _split(text)
    made: Any = DATAGRAM.get(name)
    if made is None:
        if name in STREAM or name == "frames":
            raise CannotListen(f"{name} is no protocol for datagrams")
        made = _imported(name)
        if issubclass(made, LineServer):
            if not made.datagrams:
                raise CannotListen(
                    f"{name} is a LineServer: it cannot serve a datagram endpoint, "
                    "unless its class says `datagrams = True`"
                )
            if made.answer is LineServer.answer:
                raise CannotListen(f"{name} has no answer(), which datagrams are given to")
            return partial(DatagramLines, _tried(name, made, options))
    return _tried(name, made, options, counters=None)


def _tried(
    name: str, made: Callable[..., Any], options: dict[str, str], **settings: Any
) -> Callable[..., Any]:
    """Give `made` with `options` for keyword arguments, having seen that it takes them."""
    try:
        made(**options, **settings)
    except Exception as problem:
        raise CannotListen(f"{name} cannot be made: {_described(problem)}") from problem
    return lambda **settings: made(**options, **settings)


def _split(text: str) -> tuple[str, dict[str, str]]:
    """Split `NAME:KEY=VALUE:KEY=VALUE`, where NAME may be `module:Class`."""
    name, *rest = text.split(":")
    if rest and "=" not in rest[0]:
        name = f"{name}.{rest.pop(0)}"
    options = {}
    for each in rest:
        key, equals, value = each.partition("=")
        if not (equals and key.isidentifier()):
            raise CannotListen(f"{ascii(each)[1:-1]} is not NAME=VALUE for the protocol {name}")
        options[key] = value
    return name, options


def _imported(name: str) -> type[Any]:
    """Find the class of a dotted name."""
    moduleName, dot, className = name.rpartition(".")
    if not dot:
        builtin = ", ".join(sorted({*STREAM, *DATAGRAM, "frames"}))
        raise CannotListen(
            f"no such protocol: {ascii(name)[1:-1]}; built in are {builtin}; "
            "a class is written module.Class"
        )
    try:
        module = imports.module(moduleName)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{moduleName}.".startswith(f"{missing.name}."):
            raise CannotListen(f"no such module: {ascii(moduleName)[1:-1]}") from missing
        raise CannotListen(f"importing {moduleName} failed: {_described(missing)}") from missing
    except (Exception, SystemExit) as problem:
        raise CannotListen(f"importing {moduleName} failed: {_described(problem)}") from problem
    found = getattr(module, className, None)
    if found is None:
        raise CannotListen(f"module {moduleName} has no class {ascii(className)[1:-1]}")
    if not (isinstance(found, type) and issubclass(found, (LineServer, DatagramServer))):
        raise CannotListen(f"{name} is neither a LineServer nor a DatagramServer")
    return found


def _described(problem: BaseException) -> str:
    return ascii(f"{type(problem).__name__}: {problem}")[1:-1]
