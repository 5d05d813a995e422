"""Several sockets on one address: none by mistake, each with its part."""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sockservice.errors import CannotListen
from sockservice.net.bind.bound import Bound
from sockservice.net.bind.inet import RECEIVE_BUFFER, inet, pairs
from sockservice.net.bind.options import socketOption as option
from sockservice.net.bind.reuseport import Inherited, Sharing
from sockservice.net.bind.unix import local
from tests.conftest import PATIENCE

WORKERS = 3


@pytest.fixture
def sharing() -> Iterator[Sharing]:
    made = Sharing(WORKERS)
    yield made
    made.close()


def copies(sharing: Sharing, number: int) -> list[list[Bound]]:
    """Give the sockets a worker would inherit; they are closed by their owner."""
    descriptors = [[os.dup(each) for each in group] for group in sharing.of(number)]
    inherited = Inherited(descriptors)
    return [inherited(list) for _ in descriptors]


def test_a_taken_address_is_an_error_and_the_first_server_notices_nothing(
    sharing: Sharing,
) -> None:
    [stream, datagram] = sharing(lambda: pairs("127.0.0.1", 0))
    sharing.spread([])
    port = stream.socket.getsockname()[1]
    assert port == datagram.socket.getsockname()[1]
    second = Sharing(WORKERS)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with pytest.raises(CannotListen, match="the port is taken"):
            second(lambda kind=kind: inet("127.0.0.1", port, kind))  # type: ignore[misc]


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_each_worker_has_its_socket_on_the_address(sharing: Sharing, host: str) -> None:
    first = sharing(lambda: pairs(host, 0))
    sharing.spread([option("SO_KEEPALIVE=1")])
    numbers = set()
    for number in range(1, WORKERS + 1):
        [found] = sharing.of(number)
        numbers |= set(found)
        [[stream, datagram]] = copies(sharing, number)
        with closing(stream.socket), closing(datagram.socket):
            for ours, theirs in zip(first, (stream, datagram), strict=True):
                assert theirs.name == ours.name
                if number > 1:
                    assert theirs.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            [limit] = {
                each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                for each in (datagram, first[1])
            }
            assert limit <= 2 * RECEIVE_BUFFER
    assert len(numbers) == 2 * WORKERS


def test_other_sockets_are_one_for_all(sharing: Sharing, tmp_path: Path) -> None:
    sharing(lambda: [local(str(tmp_path / "s"), socket.SOCK_STREAM, {})])
    sharing.spread([])
    assert sharing.of(1) == sharing.of(2) == sharing.of(3)
    sharing.close()
    assert not (tmp_path / "s").exists()


def came(bound: list[Bound]) -> list[int]:
    """Wait until something has come, and say to which of the sockets."""
    sockets = [each.socket for each in bound]
    readable, _, _ = select.select(sockets, [], [], PATIENCE)
    for each in readable:
        if each.type == socket.SOCK_STREAM:
            each.accept()[0].close()
        else:
            each.recv(1)
    return [sockets.index(each) for each in readable]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_what_is_steered_goes_where_its_source_has_gone_before(
    sharing: Sharing, host: str, kind: socket.SocketKind
) -> None:
    sharing(lambda: inet(host, 0, kind))
    sharing.spread([])
    sharing.hold()
    sharing.steer()
    bound = [group[0] for number in range(1, WORKERS + 1) for group in copies(sharing, number)]
    port = bound[0].socket.getsockname()[1]
    seen = set()
    for source in range(1, 20):
        places = set()
        for _ in range(4):
            with closing(socket.socket(socket.AF_INET, kind)) as peer:
                peer.bind((f"127.0.0.{source}", 0))
                peer.connect(("127.0.0.1", port))
                if kind == socket.SOCK_DGRAM:
                    peer.send(b"x")
                places |= set(came(bound))
        assert len(places) == 1
        seen |= places
    assert seen == set(range(WORKERS))
    if host == "::":
        with closing(socket.socket(socket.AF_INET6, kind)) as peer:
            places = set()
            peer.connect(("::1", port))
            if kind == socket.SOCK_DGRAM:
                for _ in range(4):
                    peer.send(b"x")
                    places |= set(came(bound))
            else:
                places |= set(came(bound))
        assert len(places) == 1
    for each in bound:
        each.socket.close()


def test_with_limits_for_each_source_one_worker_has_what_cannot_be_steered(
    sharing: Sharing, tmp_path: Path
) -> None:
    sharing(lambda: [local(str(tmp_path / "s"), socket.SOCK_STREAM, {})])
    sharing(lambda: inet("127.0.0.1", 0, socket.SOCK_STREAM))
    sharing.spread([])
    sharing.hold()
    sharing.steer()
    assert [[len(group) for group in sharing.of(number)] for number in (1, 2, 3)] == [
        [1, 1],
        [0, 1],
        [0, 1],
    ]


def test_what_the_system_does_not_do_is_told(sharing: Sharing, tmp_path: Path) -> None:
    alone = Sharing(1)
    alone(lambda: inet("127.0.0.1", 0, socket.SOCK_STREAM))
    alone.spread([])
    with pytest.raises(CannotListen, match=r"^--workers: limits for each source can't be kept: "):
        alone.steer()
    alone.close()

    def one() -> list[Bound]:
        made = local(str(tmp_path / "s"), socket.SOCK_STREAM, {})
        return [Bound(made.socket, str(tmp_path / "s"), spreads=True)]

    sharing(one)
    with pytest.raises(CannotListen, match=r"^--workers: .*/s can't be shared: "):
        sharing.spread([])
