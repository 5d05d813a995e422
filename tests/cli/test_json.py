"""What every command prints with --json, and its exit status, when all goes well and when not."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from sockservice.cli.status import SIGNALS
from tests.certificates import Identity
from tests.conftest import PATIENCE, SCRIPTS, Child, Children, ClosedNumber, Service, signalled

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/output.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Service]]:
    """A folder in which a service keeps `kept.db`, and other files that are no stores."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "text.db").write_text("no database\n" * 1000)
    with ExitStack() as stack:
        children = Children(folder, stack)
        served = children.serve("--store", "sqlite:kept.db", "--line-limit", "100")
        target = f"127.0.0.1:{served.address[1]}"
        assert children.run("sockservice", "send", target, "one", "two", "x" * 200).returncode == 1
        assert children.run("sockservice", "backup", "kept.db", "idle.db").returncode == 0
        assert children.run("sockservice", "backup", "kept.db", "future.db").returncode == 0
        with sqlite3.connect(folder / "future.db") as later:
            later.execute("PRAGMA user_version = 99")
        later.close()
        yield folder, served
        served.stop()


def checked(output: bytes, status: int) -> dict[str, Any]:
    """See that all objects are as the schema says, and the last the only one with a status."""
    *records, last = [json.loads(line) for line in output.splitlines()]
    VALIDATOR.validate(last)
    assert all("status" not in each for each in records)
    for each in records:
        VALIDATOR.validate(each)
    assert last["status"] == status
    found: dict[str, Any] = last
    return found


def test_the_schema_is_one_and_tells_right_from_wrong() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for wrong in (
        {"status": 0, "why": "x"},
        {"status": 1, "why": None},
        {"status": 0, "why": None},
        {"lines": 1, "last": 1},
        {"lines": 1, "last": 1, "status": 6, "why": "x"},
        {"number": 1, "outcome": "eaten"},
    ):
        with pytest.raises(ValidationError):
            VALIDATOR.validate(wrong)


TCP, UDP = "tcp:127.0.0.1:{port}", "udp:127.0.0.1:{port}"
SHUT, DEAF = "tcp:127.0.0.1:{shut}", "udp:127.0.0.1:{deaf}"

#: A command, its status, and what is in its `why`.
OUTCOMES = [
    (f"send {TCP} a b", 0, None),
    (f"send {TCP} {'x' * 200}", 1, "1 refused"),
    (f"send {SHUT} a", 3, "Connection refused"),
    (f"send {TCP} --nonsense", 2, "--nonsense"),
    ("send nowhere.invalid:5 a", 3, "could not connect"),
    (f"send {DEAF} a", 3, "nobody listens there"),
    (f"send {TCP} a -4 -6", 2, "-4 or -6, not both"),
    (f"send {TCP} a --unacked -", 2, "--unacked"),
    (f"send {TCP} a --unacked nofolder/kept", 2, "nofolder"),
    (f"send {TCP} --file nothing.here", 2, "nothing.here"),
    (f"send {TCP} a --framing no.Such", 2, "no such module: no"),
    (f"send {TCP} a --cafile text.db", 2, "applies to tls:HOST:PORT"),
    (f"send {TCP} a --session s --retry-times 0", 1, "the server knows no sessions"),
    ("send tls:127.0.0.1:{port} a", 3, "does not speak TLS"),
    ("send tls:127.0.0.1:{port} a --cafile text.db", 2, "text.db"),
    (f"send {TCP} a --proxy http://127.0.0.1:{{shut}}", 3, "the proxy"),
    (f"send {TCP} a --greeting --connect-timeout 2", 3, "greeting"),
    ("send unix:nothing.here a", 3, "could not connect"),
    ("send udp:nowhere.invalid:5 a", 3, "nowhere.invalid"),
    (f"ping {UDP} -c 2 -i 0.01", 0, None),
    (f"ping {TCP} -c 2 -i 0.01", 0, None),
    (f"ping {TCP} -c 1 -s 200", 1, "1 refused"),
    (f"ping {TCP} -c 1 --refusal ok", 1, "1 refused"),
    (f"ping {SHUT} -c 1", 3, "Connection refused"),
    (f"ping {DEAF} -c 1", 3, "nobody listens there"),
    ("ping nowhere.invalid:5", 3, "could not connect"),
    ("ping unix:nothing.here", 3, "could not connect"),
    ("ping udp:192.0.2.1:9 -c 1 -W 0.1", (1, 3), ""),
    (f"ping {UDP} -s 5", 2, "a datagram holds its number"),
    (f"ping {UDP} -s 65508", 2, "at most 65507 bytes"),
    (f"ping {TCP} -c 0", 2, "--count"),
    ("ping", 2, "Missing argument 'TARGET'"),
    ("ping tls:127.0.0.1:{port} -c 1", 3, "does not speak TLS"),
    (f"bench {TCP} -n 50", 0, None),
    (f"bench {UDP} -n 50 -t 2 -c 4", 0, None),
    (f"bench {TCP} -n 5 -R 100 --payload hello", 0, None),
    (f"bench {TCP} -n 5 -s 200", 1, "refused"),
    (f"bench {TCP} -n 5 --refusal ok", 1, "refused"),
    (f"bench {SHUT} -d 0.1", 3, "Connection refused"),
    (f"bench {DEAF} -d 0.1", 3, "nobody listens there"),
    ("bench nowhere.invalid:5", 3, "could not connect"),
    (f"bench {TCP} -c 1 -t 2", 2, "--processes"),
    (f"bench {UDP} --payload x", 2, "a datagram holds its number"),
    (f"bench {TCP} --file nothing.here", 2, "nothing.here"),
    ("lines kept.db", 0, None),
    ("lines kept.db --limit 1", 0, None),
    ("lines nothing.here", 1, "there is no such store"),
    ("lines text.db", 1, "text.db"),
    ("lines future.db", 1, "future.db"),
    ("lines kept.db --since never", 2, "--since"),
    ("lines .", 1, "."),
    ("verify kept.db", 0, None),
    ("verify nothing.here", 1, "there is no such store"),
    ("verify text.db", 1, "text.db"),
    ("verify future.db", 1, "future.db"),
    ("verify", 2, "Missing argument 'STORE'"),
    ("backup kept.db copy-{port}.db", 0, None),
    ("backup nothing.here copy.db", 1, "there is no such store"),
    ("backup kept.db nofolder/copy.db", 1, "nofolder"),
    ("backup kept.db kept.db", 2, "COPY is STORE itself"),
    ("backup future.db copy.db", 1, "future.db"),
    ("compact idle.db", 0, None),
    ("compact kept.db", 1, "kept.db"),
    ("compact text.db", 1, "text.db"),
    ("compact nothing.here", 1, "nothing.here"),
    ("sessions kept.db", 0, None),
    ("sessions kept.db --forget s", 1, ""),
    ("sessions nothing.here", 1, "there is no such store"),
    ("sessions text.db", 1, "text.db"),
    ("sessions future.db", 1, "future.db"),
    ("sessions kept.db --forget s --new-identity", 2, "two things"),
    ("ship --session s tls:127.0.0.1:{port} text.db", 3, "does not speak TLS"),
    (f"ship {TCP} text.db", 2, "--session"),
    (f"ship --session s {UDP} text.db", 2, "datagrams"),
    ("ship --session s nonsense text.db", 2, "HOST:PORT"),
    ("relay --session s kept.db tls:127.0.0.1:{port}", 3, "does not speak TLS"),
    (f"relay --session s nothing.here {SHUT}", 1, "there is no such store"),
    (f"relay --session s kept.db {UDP}", 2, "datagrams"),
    ("relay --session s kept.db", 2, "Missing argument 'TARGET'"),
]


@pytest.mark.parametrize(("command", "status", "why"), OUTCOMES, ids=[each[0] for each in OUTCOMES])
def test_the_last_object_says_how_it_ended(
    store: tuple[Path, Service],
    opened: ExitStack,
    command: str,
    status: Any,
    why: str | None,
    closed_number: ClosedNumber,
) -> None:
    folder, served = store
    given = command.format(
        port=served.address[1],
        shut=closed_number(socket.SOCK_STREAM),
        deaf=closed_number(socket.SOCK_DGRAM),
    ).split()
    json = "--events" if given[0] == "relay" else "--json"
    done = Children(folder, opened).run("sockservice", *given, json)
    assert done.returncode in (status if isinstance(status, tuple) else (status,))
    last = checked(done.stdout, done.returncode)
    said = done.stderr.decode()
    if why is None:
        assert (last["why"], said) == (None, "")
        return
    assert why in last["why"]
    assert said.count("\n") == 1
    assert said.endswith(f"{last['why']}\n")


REFUSED = [["send", "a"], ["ping", "-c", "1"], ["bench", "-n", "1"]]


@pytest.mark.parametrize("command", REFUSED, ids=lambda each: each[0])
def test_a_certificate_that_is_refused_is_status_3(
    children: Children,
    opened: ExitStack,
    authority: Identity,
    server: Identity,
    mallory: Identity,
    command: list[str],
) -> None:
    listener = f"ssl:0:interface=127.0.0.1:{server.said}:caCerts={authority.certKey}"
    process = children.start("twistd", "-n", "--pidfile=", "sockservice", "--listen", listener)
    serving = Child(process)
    port = int(serving.until(rb"listening on [a-z]+:127.0.0.1:(\d+)")[1])
    name, *rest = command
    given = ["--cafile", str(authority.certKey), "--cert", str(mallory.certKey)]
    given += ["--key", str(mallory.privateKey), f"tls:localhost:{port}"]
    done = children.run("sockservice", name, "--json", *given, *rest)
    assert done.returncode == 3, done
    assert "refused our certificate" in checked(done.stdout, 3)["why"]
    process.terminate()
    serving.end()


LONG = [
    ["ping", "udp:127.0.0.1:{port}", "-i", "0.05"],
    ["ping", "127.0.0.1:{port}", "-i", "0.05"],
    ["bench", "127.0.0.1:{port}", "-d", "60"],
    ["lines", "kept.db", "--follow"],
    ["relay", "--session", "s", "kept.db", "127.0.0.1:{shut}"],
    ["ship", "--session", "s", "127.0.0.1:{shut}", "text.db"],
]


@pytest.mark.parametrize(
    ("command", "number"),
    # SIGHUP has ship look for files, and ends nothing.
    [(each, n) for each in LONG for n in SIGNALS if (each[0], n) != ("ship", signal.SIGHUP)],
    ids=lambda each: each.name if isinstance(each, signal.Signals) else " ".join(each),
)
def test_a_signal_ends_it_with_the_sum(
    store: tuple[Path, Service],
    opened: ExitStack,
    command: list[str],
    number: signal.Signals,
    closed_number: ClosedNumber,
) -> None:
    folder, served = store
    shut = closed_number(socket.SOCK_STREAM)
    given = [each.format(port=served.address[1], shut=shut) for each in command]
    json = "--events" if given[0] == "relay" else "--json"
    child = Child(Children(folder, opened).start("sockservice", *given, json))
    process = child.process
    if given[0] != "bench":
        child.until(rb"\n")
    else:
        # SIGQUIT says how far it is, and ends nothing; but does before there is who would say.
        caught(process, signal.SIGQUIT)
        said = b" 0 lines"
        while b" 0 lines" in said:
            process.send_signal(signal.SIGQUIT)
            said = child.complaint()
        if not said.startswith(b"answered "):
            process.kill()
            raise AssertionError(said + child.end()[1])
    process.send_signal(number)
    status, errors = child.end()
    assert status == 128 + number
    last = checked(child.output, 128 + number)
    assert last["why"] == SIGNALS[number]
    assert len(last) > 2
    assert errors.decode().endswith(f"{SIGNALS[number]}\n")


def caught(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Wait until a process catches a signal."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        [mask] = [
            int(line.split()[1], 16)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("SigCgt")
        ]
        if mask >> (number - 1) & 1:
            return
    raise AssertionError("it does not")


@pytest.mark.parametrize("command", [LONG[1], LONG[3]], ids=" ".join)
def test_sigquit_tells_the_sum_and_ends_nothing(
    store: tuple[Path, Service], opened: ExitStack, command: list[str]
) -> None:
    folder, served = store
    given = [each.format(port=served.address[1]) for each in command]
    child = Child(Children(folder, opened).start("sockservice", *given))
    child.until(rb"\n")
    child.process.send_signal(signal.SIGQUIT)
    assert re.match(rb"sent |[\d,]+ lines?\b", child.complaint())
    child.process.send_signal(signal.SIGTERM)
    assert child.end()[0] == 143


@pytest.mark.parametrize(
    "command",
    [
        *("ping {target} -c 1", "bench {target} -n 1", "lines kept.db", "sessions kept.db"),
        *("verify kept.db", "compact idle.db"),
    ],
)
@pytest.mark.parametrize("output", ["/dev/full", "closed", "broken"])
def test_what_can_not_be_printed_is_status_1(
    store: tuple[Path, Service], opened: ExitStack, command: str, output: str
) -> None:
    folder, served = store
    target = f"127.0.0.1:{served.address[1]}"
    given = f"{SCRIPTS}/sockservice {command.format(target=target)} --json"
    how = {
        "/dev/full": f"exec {given} >/dev/full",
        "closed": f"exec {given} >&-",
        "broken": f"trap '' PIPE; ({given}; echo $? >&2) | true",
    }[output]
    done = Children(folder, opened).run("/bin/sh", "-c", how)
    *said, last = done.stderr.decode().splitlines()
    if output == "broken":
        quiet = command.startswith("lines")
        assert (last, len(said)) == (("0", 0) if quiet else ("1", 1))
    else:
        assert (done.returncode, said) == (1, [])
        assert "standard output" in last


@pytest.mark.parametrize(
    "command", ["verify kept.db", "compact idle.db", "backup kept.db copied.db"]
)
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_a_result_that_can_not_be_printed_is_status_1(
    store: tuple[Path, Service], opened: ExitStack, command: str, output: str
) -> None:
    how = f"exec {SCRIPTS}/sockservice {command} {output}"
    done = Children(store[0], opened).run("/bin/sh", "-c", how)
    (store[0] / "copied.db").unlink(missing_ok=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"standard output")
    assert done.stderr.count(b"\n") == 1


def test_a_bench_without_descriptors_has_not_begun(
    store: tuple[Path, Service], opened: ExitStack
) -> None:
    target = f"127.0.0.1:{store[1].address[1]}"
    how = f"ulimit -n 8; exec {SCRIPTS}/sockservice bench --json -n 1 {target}"
    done = Children(store[0], opened).run("/bin/sh", "-c", how)
    why = "not even begun: Too many open files (see ulimit -n)"
    assert checked(done.stdout, 3)["why"] == why
    assert (done.returncode, done.stderr.decode()) == (3, f"{why}\n")


def test_a_signal_while_it_starts(store: tuple[Path, Service], opened: ExitStack) -> None:
    program = signalled("twisted", signal.SIGTERM)
    done = Children(store[0], opened).run("python", "-c", program, "lines", "kept.db", "--json")
    assert (done.returncode, done.stderr) == (143, b"terminated\n")
    assert checked(done.stdout, 143) == {"status": 143, "why": "terminated"}
    assert os.path.exists(store[0] / "kept.db")
