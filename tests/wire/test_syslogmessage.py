"""The headers of syslog messages, with the examples of the RFCs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockservice.wire.syslogmessage import FACILITIES, SEVERITIES, Message

NONE: dict[str, Any] = {"procid": None, "msgid": None, "data": {}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (  # RFC 5424, 6.5
            b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
            b"\xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
            {
                **NONE,
                "facility": "auth",
                "severity": "crit",
                "time": "2003-10-11T22:14:15.003Z",
                "host": "mymachine.example.com",
                "app": "su",
                "msgid": "ID47",
                "text": "'su root' failed for lonvick on /dev/pts/8",
            },
        ),
        (
            b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - "
            b"%% It's time to make the do-nuts.",
            {
                **NONE,
                "facility": "local4",
                "severity": "notice",
                "time": "2003-08-24T05:14:15.000003-07:00",
                "host": "192.0.2.1",
                "app": "myproc",
                "procid": "8710",
                "text": "%% It's time to make the do-nuts.",
            },
        ),
        (
            b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"]'
            b'[examplePriority@32473 class="high"]',
            {
                "facility": "local4",
                "severity": "notice",
                "time": "2003-10-11T22:14:15.003Z",
                "host": "mymachine.example.com",
                "app": "evntslog",
                "procid": None,
                "msgid": "ID47",
                "data": {
                    "exampleSDID@32473": {
                        "iut": "3",
                        "eventSource": "Application",
                        "eventID": "1011",
                    },
                    "examplePriority@32473": {"class": "high"},
                },
                "text": "",
            },
        ),
        (
            rb'<13>1 - - - - - [a x="\"\\\]\n" ip="1" ip="2" ip="3"] two' + b"\nlines",
            {
                **NONE,
                "facility": "user",
                "severity": "notice",
                "time": None,
                "host": None,
                "app": None,
                "data": {"a": {"x": '"\\]\\n', "ip": ["1", "2", "3"]}},
                "text": "two\nlines",
            },
        ),
        (  # RFC 3164, 5.4
            b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            {
                **NONE,
                "facility": "auth",
                "severity": "crit",
                "time": "Oct 11 22:14:15",
                "host": "mymachine",
                "app": "su",
                "text": "'su root' failed for lonvick on /dev/pts/8",
            },
        ),
        (  # rsyslog, as it forwards
            b"<30>2026-11-26T13:02:40.997147+00:00 vm postfix/smtpd[12]: hello: you",
            {
                **NONE,
                "facility": "daemon",
                "severity": "info",
                "time": "2026-11-26T13:02:40.997147+00:00",
                "host": "vm",
                "app": "postfix/smtpd",
                "procid": "12",
                "text": "hello: you",
            },
        ),
        (  # logger, over IPv6's name of a host
            b"<13>Nov  6 02:52:10 fe80::1 app line 4999",
            {
                **NONE,
                "facility": "user",
                "severity": "notice",
                "time": "Nov  6 02:52:10",
                "host": "fe80::1",
                "app": "app",
                "text": "line 4999",
            },
        ),
        (  # syslog(3), to /dev/log
            b"<13>Nov 26 22:52:10 root[77]: hi",
            {
                **NONE,
                "facility": "user",
                "severity": "notice",
                "time": "Nov 26 22:52:10",
                "host": None,
                "app": "root",
                "procid": "77",
                "text": "hi",
            },
        ),
        (
            b"<191>use the BFG!\xff",
            {
                **NONE,
                "facility": "local7",
                "severity": "debug",
                "time": None,
                "host": None,
                "app": None,
                "text": "use the BFG!\\xff",
            },
        ),
    ],
)
def test_a_message_is_taken_apart(line: bytes, expected: dict[str, Any]) -> None:
    message = Message.parse(line)
    assert message is not None
    assert message._asdict() == expected


@pytest.mark.parametrize("line", [b"", b"hello", b"<192>a", b"<013>a", b"<>a", b"<1", b" <13>a"])
def test_what_has_no_priority_is_no_message(line: bytes) -> None:
    assert Message.parse(line) is None


@given(st.integers(0, 191), st.binary(max_size=60))
def test_any_message_is_taken_apart_somehow(priority: int, rest: bytes) -> None:
    message = Message.parse(b"<%d>" % priority + rest)
    assert message is not None
    code = FACILITIES.index(message.facility) * 8 + SEVERITIES.index(message.severity)
    assert code == priority


def test_it_is_written_for_people() -> None:
    said = str(Message.parse(b"<30>Nov 26 22:52:10 vm app[7]: hello"))
    assert said == "Nov 26 22:52:10 vm app[7] daemon.info: hello"
    assert str(Message.parse(b"<13>hello")) == "- - - user.notice: hello"
