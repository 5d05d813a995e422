"""Headers of syslog messages, written and read again; frames counted in octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.framing import LF, Lines
from sockservice.wire.octets import OctetCounted
from sockservice.wire.syslog import SyslogFraming
from sockservice.wire.syslogheader import Heading
from sockservice.wire.syslogmessage import FACILITIES, SEVERITIES, Message

SAID = {"severity": "notice", "facility": "user", "app": "app"}


def test_a_header_is_that_of_rfc_5424() -> None:
    assert Heading("vm", **SAID).encode(1_700_000_000.25) == (
        b"<13>1 2023-11-14T22:13:20.250000Z vm app - - - "
    )


@given(st.sampled_from(FACILITIES), st.sampled_from(SEVERITIES), st.text())
def test_what_is_written_is_what_is_read(facility: str, severity: str, text: str) -> None:
    header = Heading("a.example", severity=severity, facility=facility, app="[app]")
    message = Message.parse(header.encode(0.0) + text.encode("utf-8", "backslashreplace"))
    assert message is not None
    assert (message.facility, message.severity) == (facility, severity)
    assert (message.host, message.app, message.procid) == ("a.example", "[app]", None)


@pytest.mark.parametrize("host", ["", "a b", "\N{SNOWMAN}", "x" * 256])
def test_a_host_that_can_be_in_no_header_is_left_out(host: str) -> None:
    assert b"Z - app " in Heading(host, **SAID).encode(0.0)


@pytest.mark.parametrize("app", ["", "a b", "\N{SNOWMAN}", "x" * 49])
def test_a_program_that_can_be_in_no_header_is_refused(app: str) -> None:
    with pytest.raises(ValueError, match="1 to 48 printable ASCII"):
        Heading("vm", **SAID | {"app": app})


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1))
def test_frames_counted_in_octets_are_what_the_listener_takes(lines: list[bytes]) -> None:
    framing = SyslogFraming(100)
    framing.receive(OctetCounted(100).encode(lines, LF))
    # syslog-ng counts the LF at the end of a message, which is no part of it.
    taken = [line.removesuffix(LF) for line in lines]
    assert framing.take(1000) == Lines(taken, b"")
