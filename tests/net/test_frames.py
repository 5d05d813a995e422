"""Frames: described on one line, and read from a real interface where that is allowed."""

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from sockservice.net.bind.raw import FramePort, described, packet
from sockservice.wire.plurals import counted
from tests.conftest import HandReactor, Log, Running

ETHERNET = bytes.fromhex("0242ac110002 0242ac110003".replace(" ", ""))


def ip(protocol: int) -> bytes:
    """Give an IPv4 header without options or payload."""
    addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2")
    return struct.pack("!BBHHHBBH", 0x45, 0, 20, 1, 0, 64, protocol, 0) + addresses


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"", "a malformed frame, 0 bytes"),
        (ETHERNET, "a malformed frame, 12 bytes"),
        (ETHERNET + b"\x08\0" + ip(6)[:19], "a malformed frame, 33 bytes"),
        (
            ETHERNET + b"\x08\x06" + bytes(28),
            "02:42:ac:11:00:03 > 02:42:ac:11:00:02 ARP, 42 bytes",
        ),
        (
            ETHERNET + b"\x86\xdd" + bytes(40),
            "02:42:ac:11:00:03 > 02:42:ac:11:00:02 IPv6, 54 bytes",
        ),
        (
            ETHERNET + b"\x88\xcc",
            "02:42:ac:11:00:03 > 02:42:ac:11:00:02 0x88cc, 14 bytes",
        ),
        (ETHERNET + b"\x08\0" + ip(1), "192.0.2.1 > 192.0.2.2 ICMP, 34 bytes"),
        (ETHERNET + b"\x08\0" + ip(6), "192.0.2.1 > 192.0.2.2 TCP, 34 bytes"),
        (ETHERNET + b"\x08\0" + ip(17), "192.0.2.1 > 192.0.2.2 UDP, 34 bytes"),
        (ETHERNET + b"\x08\0" + ip(132), "192.0.2.1 > 192.0.2.2 IPv4 protocol 132, 34 bytes"),
    ],
)
def test_a_frame_is_described_on_one_line(frame: bytes, said: str) -> None:
    assert described(frame) == said


@given(st.binary(max_size=80))
def test_any_frame_is_described(frame: bytes) -> None:
    said = described(frame)
    assert said.isprintable()
    assert said.endswith(f", {counted(len(frame), 'byte')}")


SENDER = "127.77.0.1"  # which nobody else uses

needsRaw = pytest.mark.skipif(os.geteuid() != 0, reason="a packet socket needs root or CAP_NET_RAW")


def sent(count: int, size: int = 100) -> None:
    """Send datagrams over the loopback to where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((SENDER, 0))
        # To itself, so that no refusal comes back.
        for _ in range(count):
            made.sendto(b"x" * size, made.getsockname())


def logged(log: Log) -> list[str]:
    return [text for text in log.texts if f" {SENDER} > {SENDER} " in text]


@needsRaw
def test_frames_of_an_interface_are_logged_once_each(running: Running, log: Log) -> None:
    service = running.start("--listen", "raw:lo")
    assert "frames listening on raw:lo" in log.texts
    # Each of another size: where other traffic pushes some out, the next are there still.
    sizes = iter(range(100, 60_000))

    def come() -> bool:
        sent(1, next(sizes))
        return len(logged(log)) >= 3

    running.reactor.until(come)
    running.reactor.iterate(0)
    last = next(sizes)
    told = logged(log)
    every = [f"lo {SENDER} > {SENDER} UDP, {42 + size} bytes" for size in range(100, last)]
    assert told == [text for text in every if text in told]
    running.reactor.result(running.stopping(service))
    sent(1, last)
    running.reactor.iterate(0)
    assert logged(log) == told


@needsRaw
def test_a_burst_of_frames_leaves_others_their_turn(reactor: HandReactor, log: Log) -> None:
    bound = packet("lo")
    port = FramePort(reactor, bound.socket)
    try:
        sent(FramePort.TURN)
        port.doRead()
        # On the way out and in again, each is there twice; others' may be among them.
        assert len(logged(log)) <= FramePort.TURN // 2
        for _ in range(1000):
            port.doRead()
        assert len(logged(log)) == FramePort.TURN
    finally:
        bound.close()


@needsRaw
def test_an_interface_that_goes_down_is_read_again(reactor: HandReactor, log: Log) -> None:
    bound = packet("lo")
    port = FramePort(reactor, bound.socket)
    port.startListening()
    # What a reactor does with an error that waits on a socket.
    reactor.removeReader(port)
    port.connectionLost(Failure(ConnectionLost()))

    def come() -> bool:
        # Other traffic may push one out.
        sent(1)
        return bool(logged(log))

    reactor.until(come)
    assert port.logPrefix() == "frames"
    port.stopListening()
    assert port not in reactor.getReaders()
    bound.close()
