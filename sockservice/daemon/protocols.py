"""Find the protocol that the command line names: a built-in one, or any class."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sockservice import importing
from sockservice.errors import CannotListen
from sockservice.server.ack import Ack
from sockservice.server.builtin import (
    AckChunks,
    AckDatagrams,
    DatagramLines,
    DiscardDatagrams,
    DiscardLines,
    EchoLines,
)
from sockservice.server.datagram import DatagramServer, Echo
from sockservice.server.line import LineServer
from sockservice.server.relp import Relp
from sockservice.server.session import Session
from sockservice.server.syslog import Syslog, SyslogDatagrams

STREAM: dict[str, Callable[..., LineServer]] = {
    "ack": Ack,
    "ack-chunks": AckChunks,
    "discard": DiscardLines,
    "echo": EchoLines,
    "relp": Relp,
    "session": Session,
    "syslog": Syslog,
}
DATAGRAM: dict[str, Callable[..., DatagramServer]] = {
    "ack": AckDatagrams,
    "discard": DiscardDatagrams,
    "echo": Echo,
    "syslog": SyslogDatagrams,
}


def streamProtocol(text: str, *, stored: bool = False) -> Callable[[], LineServer]:
    """Return the factory function of the protocol that `text` names, for connections.

    `stored` says whether there is a store.

    :raises CannotListen: It does not name a protocol for streams, or one that needs a store.
    """
    name, options = _split(text)
    made: Any = STREAM.get(name)
    if made is None:
        if name in DATAGRAM or name == "frames":
            raise CannotListen(f"{name} is no protocol for streams")
        made = _imported(name)
        if not issubclass(made, LineServer):
            raise CannotListen(f"{name} is a DatagramServer: it cannot serve a stream endpoint")
    _storing(name, made, stored)
    return _tried(name, made, options)


def datagramProtocol(text: str, *, stored: bool = False) -> Callable[..., DatagramServer]:
    """Return the factory function of the protocol that `text` names, for a datagram socket.

    `stored` says whether there is a store.

    :raises CannotListen: It does not name a protocol for datagrams, or one that needs a store.
    """
    name, options = _split(text)
    made: Any = DATAGRAM.get(name)
    if made is None:
        if name in STREAM or name == "frames":
            raise CannotListen(f"{name} is no protocol for datagrams")
        made = _imported(name)
    _storing(name, made, stored)
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


def _storing(name: str, made: type[Any], stored: bool) -> None:
    """See that a class that says `stores = True` has a store."""
    if getattr(made, "stores", False) and not stored:
        raise CannotListen(f"{name} stores lines: it needs --store")


def _tried(
    name: str, made: Callable[..., Any], options: dict[str, str], **settings: Any
) -> Callable[..., Any]:
    """Return `made` with `options` as keyword arguments, after a trial call with them."""
    try:
        made(**options, **settings)
    except Exception as problem:
        raise CannotListen(f"{name} cannot be made: {importing.described(problem)}") from problem
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
    if "." not in name:
        builtin = ", ".join(sorted({*STREAM, *DATAGRAM, "frames"}))
        raise CannotListen(
            f"no such protocol: {ascii(name)[1:-1]}; built in are {builtin}; "
            "a class is written module.Class"
        )
    try:
        found = importing.named(name)
    except ValueError as problem:
        raise CannotListen(str(problem)) from problem
    if not (isinstance(found, type) and issubclass(found, (LineServer, DatagramServer))):
        raise CannotListen(f"{name} is neither a LineServer nor a DatagramServer")
    return found
