"""The name of a store in NATS."""

import pytest

from sockservice.store.nats.place import concealed, parsed


def test_a_name_says_all_that_is_demanded() -> None:
    place = parsed(
        "nats://al%40x:pw@h1:1,h2,[::1]:3/LINES?create&max_bytes=20G&replicas=5"
        "&monitor=http://h1:8222/,http://h2:8222&ca=/ca.pem"
    )
    assert place.nodes == ("h1:1", "h2:4222", "[::1]:3")
    assert (place.user, place.password) == ("al@x", "pw")
    assert (place.create, place.maxBytes, place.replicas) == (True, 20 << 30, 5)
    assert place.monitors == ("http://h1:8222", "http://h2:8222")
    assert place.tls
    assert str(place) == "nats://h1:1,h2:4222,[::1]:3/LINES"
    assert (place.subject, place.sessions) == ("LINES.l", "LINES.s.>")


def test_usual_is_three_replicas_whose_syncing_is_seen() -> None:
    place = parsed("nats://h/S")
    assert (place.replicas, place.unchecked, place.create, place.tls) == (3, False, False, False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nats:lines", "the name of a store in NATS"),
        ("nats:///S", "the name of a store in NATS"),
        ("nats://h", "no name of a stream: ''"),
        ("nats://h/a.b", "no name of a stream: 'a.b'"),
        ("nats://h/S/T", "no name of a stream: 'S/T'"),
        ("nats://h,/S", "no host: ''"),
        ("nats://h:x/S", "no host: 'h:x'"),
        ("nats://h:0/S", "no port: 'h:0'"),
        ("nats://h1,[::1]:65536/S", "no port: '[::1]:65536'"),
        ("nats://h/S?creat", "no option: 'creat'"),
        ("nats://h/S?create", "create needs max_bytes="),
        ("nats://h/S?create=1&max_bytes=1G", "create takes no value"),
        ("nats://h/S?max_bytes", "max_bytes takes a value"),
        ("nats://h/S?max_bytes=x", "max_bytes='x' is no number of bytes"),
        ("nats://h/S?replicas=2", "replicas='2'; 1, 3 or 5 may be"),
        ("nats://h/S?monitor=h:8222", "monitor='h:8222' is no http://"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parsed(url)
    assert why in str(refused.value)


def test_a_password_is_not_shown() -> None:
    assert concealed("nats://a:secret@h/S") == "nats://h/S"
    assert concealed("sqlite:/a//b@c") == "sqlite:/a//b@c"
