"""Addresses on one line."""

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from sockservice.net.addresses import hostPort, named


@pytest.mark.parametrize(
    ("host", "written"),
    [("127.0.0.1", "127.0.0.1:5"), ("::1", "[::1]:5"), ("fe80::1%lo", "[fe80::1%lo]:5")],
)
def test_ipv6_stands_in_brackets(host: str, written: str) -> None:
    assert hostPort(host, 5) == written


@pytest.mark.parametrize(
    ("address", "written"),
    [
        (IPv4Address("TCP", "127.0.0.1", 7), "127.0.0.1:7"),
        (IPv6Address("TCP", "::1", 7), "[::1]:7"),
        ("", "unix:unnamed"),
        (None, "unix:unnamed"),
        (b"\0abs\n\xff", r"@abs\n\udcff"),
        ("/\xe9'\x1b", r"/\xe9'\x1b"),
        (UNIXAddress(b"/a\nb\x1b"), r"UNIXAddress('/a\\nb\\x1b')"),
    ],
)
def test_an_address_takes_one_line_and_no_control_characters(
    address: IAddress | str | bytes | None, written: str
) -> None:
    assert named(address) == written
