"""Share addresses among several processes; SO_REUSEPORT, socket(7)."""

import ctypes
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.inet import RECEIVE_BUFFER
from sockservice.net.bind.options import SocketOption
from sockservice.net.bind.unbound import unbound

#: Binds sockets when it is called.
Bind = Callable[[], list[Bound]]
#: Returns the sockets of a listener: binds them, or has them already.
Ask = Callable[[Bind], list[Bound]]

# Python's socket module has no name for it; asm-generic/socket.h.
_ATTACH_REUSEPORT_CBPF = 51

_LOAD_WORD, _LOAD_BYTE, _COPY, _JUMP, _EQUAL = 0x20, 0x30, 0x07, 0x05, 0x15
_SHIFT, _XOR, _MULTIPLY, _MODULO, _RETURN = 0x74, 0xAC, 0x24, 0x94, 0x16
_HEADER = 0xFFF00000  # of IP: SKF_NET_OFF; linux/filter.h


def asked(bind: Bind) -> list[Bound]:
    """Return what `bind` returns: a process that serves alone binds for itself."""
    return bind()


class Sharing:
    """The sockets that `workers` processes share, in the order of the listeners.

    TCP and UDP have a socket for each process on the same address; of any other kind all
    processes share one. All are kept open here, so that connections and datagrams for a
    process that died wait for its replacement.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._asked: list[list[Bound]] = []
        self._more: dict[Bound, list[Bound]] = {}
        self._steered = False

    def __call__(self, bind: Bind) -> list[Bound]:
        """Bind as for one process: an address in use is an error."""
        bound = bind()
        self._asked.append(bound)
        return bound

    def spread(self, options: Iterable[SocketOption]) -> None:
        """Bind each address that can be shared once for each process.

        :raises CannotListen: The system does not allow it.
        """
        for first in self._bound():
            if first.spreads and first not in self._more:
                more = self._more[first] = [first]
                while len(more) < self._workers:
                    more.append(_another(first))
                    more[-1].set(options)

    def steer(self) -> None:
        """Direct all traffic from a source to the same process.

        A socket shared by all is served by the first process only, unless processes have
        been started already.

        :raises CannotListen: The system does not support it.
        """
        for more in self._more.values():
            _steer(more[0].socket, self._workers)
        self._steered = True

    def hold(self) -> None:
        """Let the system take connections on all sockets, whose processes come later."""
        for more in self._more.values():
            for each in more:
                if each.socket.type == socket.SOCK_STREAM:
                    with each.telling():
                        each.socket.listen()

    def of(self, number: int) -> list[list[int]]:
        """Return the descriptors of worker `number`, from 1, in the order of the listeners."""
        return [
            [
                self._more.get(bound, [bound] * self._workers)[number - 1].socket.fileno()
                for bound in group
                if number == 1 or bound in self._more or not self._steered
            ]
            for group in self._asked
        ]

    def close(self) -> None:
        """Close all sockets, and remove their files."""
        for bound in self._bound():
            for each in self._more.get(bound, [bound]):
                each.close()

    def _bound(self) -> Iterator[Bound]:
        for group in self._asked:
            yield from group


class Inherited:
    """Returns the sockets that the process has inherited, instead of binding.

    `descriptors` are those that :meth:`Sharing.of` returned.
    """

    def __init__(self, descriptors: Iterable[Iterable[int]]) -> None:
        self._groups = iter(descriptors)

    def __call__(self, bind: Bind) -> list[Bound]:
        """Return the sockets of the next listener."""
        return [Bound(socket.socket(fileno=each)) for each in next(self._groups)]


def _another(first: Bound) -> Bound:
    """Bind one more socket to the address of a bound one.

    The first was bound without SO_REUSEPORT: else another server that has it set would
    not be noticed, and would be given a part of the connections.
    """
    bound = first.socket
    made = unbound(f"--workers: {first.name} can't be shared", bound.family, bound.type)
    try:
        for each in (bound, made):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            only = bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        if made.type == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        made.bind(bound.getsockname())
    except OSError as error:
        made.close()
        raise CannotListen(f"--workers: {first.name} can't be shared: {error.strerror}") from error
    return Bound(made)


def _steer(bound: socket.socket, workers: int) -> None:
    """Let the kernel choose among the sockets of an address by the source of a packet.

    A source is an IPv4 address or an IPv6 /64, as in :func:`sockservice.limits.admission.source`.
    """
    program = b"".join(
        struct.pack("=HBBI", *each)
        for each in (
            (_LOAD_BYTE, 0, 0, _HEADER),
            (_SHIFT, 0, 0, 4),
            (_EQUAL, 2, 0, 6),  # the version
            (_LOAD_WORD, 0, 0, _HEADER + 12),
            (_JUMP, 0, 0, 4),
            (_LOAD_WORD, 0, 0, _HEADER + 8),
            (_COPY, 0, 0, 0),
            (_LOAD_WORD, 0, 0, _HEADER + 12),
            (_XOR, 0, 0, 0),
            (_MULTIPLY, 0, 0, 0x9E3779B1),  # spreads neighbours; 2**32 by the golden ratio
            (_SHIFT, 0, 0, 16),
            (_MODULO, 0, 0, workers),
            (_RETURN, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    given = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))  # struct sock_fprog
    try:
        bound.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, given)
    except OSError as error:
        raise CannotListen(
            f"--workers: limits for each source can't be kept: {error.strerror}"
        ) from error
