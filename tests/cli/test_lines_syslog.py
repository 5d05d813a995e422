"""`sockservice lines --syslog`: messages taken apart, and chosen by what they say."""

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from sockservice.cli import main
from sockservice.store.engine import Batch
from sockservice.store.sqlite import SQLite

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/output.schema.json").read_text())
LINES = [
    b"<34>1 2003-10-11T22:14:15.003Z vm su 7 ID47 [a b=\"c\"] 'su root' failed",
    b"<30>Nov 26 22:52:10 vm cron[12]: hello",
    b"no message",
    b"<15>Nov 26 22:52:11 other su: f\xc3\xbcnf\x1b[2J\xff",
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    store = SQLite(str(tmp_path / "lines.db"))
    store.open()
    store.commit([Batch(1_700_000_000_000_000, "192.0.2.1:7", "udp:192.0.2.9:514", LINES)])
    store.close()
    return str(tmp_path / "lines.db")


def printed(*arguments: str) -> list[bytes]:
    done = CliRunner().invoke(main, ["lines", *arguments])
    assert (done.exit_code, done.stderr) == (0, "")
    *found, last = done.stdout_bytes.split(b"\n")
    assert last == b""
    return found


def test_messages_are_put_in_words_and_other_lines_stay(path: str) -> None:
    assert printed(path, "--syslog") == [
        b"2003-10-11T22:14:15.003Z vm su[7] auth.crit: 'su root' failed",
        b"Nov 26 22:52:10 vm cron[12] daemon.info: hello",
        b"no message",
        b"Nov 26 22:52:11 other su user.debug: f\xc3\xbcnf\x1b[2J\\xff",
    ]


def test_objects_have_what_messages_say(path: str) -> None:
    *objects, last = map(json.loads, printed(path, "--syslog", "--json"))
    for each in (*objects, last):
        jsonschema.validate(each, SCHEMA)
    assert last["lines"] == 4
    assert [each.get("line", "").encode() for each in objects[:3]] == LINES[:3]
    assert objects[0]["syslog"] == {
        "facility": "auth",
        "severity": "crit",
        "time": "2003-10-11T22:14:15.003Z",
        "host": "vm",
        "app": "su",
        "procid": "7",
        "msgid": "ID47",
        "data": {"a": {"b": "c"}},
        "text": "'su root' failed",
    }
    assert "syslog" not in objects[2]
    assert objects[3]["syslog"]["text"] == "fünf\x1b[2J\\xff"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--severity", "crit"], [0]),
        (["--severity", "info"], [0, 1]),
        (["--severity", "debug"], [0, 1, 3]),
        (["--severity", "emerg"], []),
        (["--host", "vm"], [0, 1]),
        (["--app", "su"], [0, 3]),
        (["--app", "su", "--host", "other"], [3]),
        (["--app", "su", "--limit", "1"], [0]),
        (["--app", "su", "--limit", "2"], [0, 3]),
        (["--app", "su", "--after", "1"], [3]),
    ],
)
def test_messages_are_chosen_by_what_they_say(
    path: str, options: list[str], expected: list[int]
) -> None:
    assert printed(path, *options) == [LINES[number] for number in expected]
