"""The table of settings, and all that is made of it or has to agree with it."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
from twisted.python import usage

from sockservice.cli import main
from sockservice.cli.man import page
from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.options import Options
from sockservice.daemon.protocols import DATAGRAM, STREAM
from sockservice.daemon.service import common, listen
from sockservice.limits.admission import Limits
from sockservice.limits.counters import Counters
from sockservice.limits.readers import age, length, seconds, size
from sockservice.limits.setting import Setting
from sockservice.limits.settings import FILES, SETTINGS
from sockservice.server.datagram import DatagramServer
from sockservice.server.factory import LineFactory
from tests.cli.test_man import plain
from tests.conftest import HandReactor
from tests.daemon.test_tap import parsed

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"

every = pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
valued = pytest.mark.parametrize(
    "setting",
    [each for each in SETTINGS if each.reader is not None and each.default],
    ids=lambda each: each.name,
)


def test_the_options_of_twistd_are_those_of_the_table() -> None:
    known = [name.removesuffix("=") for name in Options().longOpt]
    assert sorted(known) == sorted(["check", "help", "version", *(each.name for each in SETTINGS)])


@every
def test_the_help_describes_every_option(setting: Setting) -> None:
    told = Options().getUsage(width=10_000)
    short = f"-{setting.short}," if setting.short else ""
    value = "" if setting.reader is None else "="
    written = re.escape(f"{short} --{setting.name}{value} ")
    assert re.search(rf"^ *{written} *{re.escape(setting.description)}$", told, re.MULTILINE)


@valued
def test_the_default_that_is_told_is_the_one_that_holds(setting: Setting) -> None:
    told = Options().getUsage(width=10_000)
    [line] = re.findall(rf"--{setting.name}= .*", told)
    [default] = re.findall(r" Default (\S+?)(?: s| bytes)?[:.](?: |$)", line)
    assert setting.coerce(default) == setting.default == parsed()[setting.name]


@every
def test_what_is_off_by_default_is_told_to_be(setting: Setting) -> None:
    assert (re.match("off(:|$)", setting.usual) is not None) == (not setting.default)
    assert bool(parsed()[setting.name]) == bool(setting.default)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ([], {"allow": "off", "line-rate": "off", "report": "off", "verbose": "off"}),
        (["--allow", "none", "--deny", "none"], {"allow": "none", "deny": "none"}),
        (
            ["--allow", "192.0.2.0/24", "--deny", "::1"],
            {"allow": "192.0.2.0/24", "deny": "::1/128"},
        ),
        (["--idle-timeout", "0", "--memory-limit", "0"], {"idle-timeout": "off"}),
        (["--memory-limit", "0", "--session-age", "0"], {"memory-limit": "off"}),
        (["--port", "0", "--drain-timeout", "0"], {"port": "0", "drain-timeout": "0 s"}),
        (["--verbose"], {"verbose": "on"}),
    ],
)
def test_values_are_written_in_one_way(given: list[str], written: dict[str, str]) -> None:
    options = parsed(*given)
    known = {each.name: each.written(options[each.name]) for each in SETTINGS}
    assert {name: known[name] for name in written} == written


def test_zero_is_a_value_only_where_it_switches_nothing_off() -> None:
    """The help of all others says what it is."""
    for each in SETTINGS:
        with suppress(usage.UsageError):
            if each.reader is not None and each.coerce("0") == 0:
                assert each.zero == (
                    re.search(r"\b0 (is (no limit|never)|closes)", each.help) is None
                )


def test_the_help_names_every_protocol() -> None:
    [listen] = [each for each in SETTINGS if each.name == "listen"]
    assert {*STREAM, *DATAGRAM} <= {*re.findall(r"[\w-]+", listen.help)}


@pytest.mark.parametrize(
    ("write", "value", "written"),
    [
        (size(0, "1G").write, 3 << 30, "3G"),
        (size(0, "1G").write, 1536, "1536"),
        (size(0, "1G").write, 0, "0"),
        (age("1d").write, 7200, "2h"),
        (seconds(0, 9).write, 5, "5 s"),
        (length(0, 9).write, 5, "5 bytes"),
    ],
)
def test_values_are_written_for_people(
    write: Callable[[Any], str], value: int, written: str
) -> None:
    assert write(value) == written


@every
def test_a_flag_takes_no_value_and_all_else_does(setting: Setting, tmp_path: Path) -> None:
    if setting.reader is None:
        assert parsed(f"--{setting.name}")[setting.name] is True
        assert parsed()[setting.name] is False
    elif setting.repeated:
        given = "SO_RCVBUF=1" if setting.name == "socket-option" else "127.0.0.1"
        twice = parsed(f"--{setting.name}", given, f"--{setting.name}", given)[setting.name]
        assert twice == setting.coerce(given) * 2
    else:
        other = {"host": "127.0.0.1", "store": "sqlite:x", "config": str(tmp_path / "s.toml")}
        (tmp_path / "s.toml").write_text("verbose = true\n")
        value = other.get(setting.name, "7")
        chosen = parsed("--store", "sqlite:x", f"--{setting.name}", value)
        assert chosen[setting.name] == setting.coerce(value)
        assert chosen.chosen == {"store", setting.name}


def test_every_field_of_the_limits_is_an_option() -> None:
    assert {each.limit for each in SETTINGS if each.limit} == {
        field.name for field in fields(Limits)
    }


@pytest.mark.parametrize(
    "setting",
    [each for each in SETTINGS if each.limit not in ("", "access")],
    ids=lambda each: each.name,
)
def test_an_option_fills_its_own_field_of_the_limits(setting: Setting) -> None:
    usual, limits = vars(parsed().limits()), vars(parsed(f"--{setting.name}", "7").limits())
    assert limits.pop("access").everybody and usual.pop("access").everybody
    assert limits == {**usual, setting.limit: 7}


def test_a_limit_has_a_reason_for_its_default_and_counters_that_there_are() -> None:
    limits = [each for each in SETTINGS if each.protects]
    assert {each.name for each in limits} >= {each.name for each in SETTINGS if each.limit}
    for each in limits:
        assert each.why
        assert set(re.findall("`(.*?)`", each.counter)) <= set(Counters().counts())


@pytest.mark.parametrize("made", [LineFactory, DatagramServer])
def test_listeners_are_given_all_that_they_can_be(reactor: HandReactor, made: type) -> None:
    shared = common(reactor, parsed("--line-limit", "7", "--verbose"), None)
    given = shared.keywords(made, listener="here", clock=reactor)
    taken = signature(made).parameters.values()
    assert set(given) == {each.name for each in taken if each.kind is Parameter.KEYWORD_ONLY}
    assert given["listener"] == "here"
    assert given["verbose"] is True
    assert given["counters"] is shared.counters["here"]
    assert given.get("lineLimit", 7) == 7


def test_an_option_is_given_to_who_takes_it_by_its_name(reactor: HandReactor) -> None:
    class Taking:
        def __init__(self, reactor: Any, *, drainTimeout: int, port: int, other: int = 0) -> None:
            raise AssertionError("is not made")

    shared = common(reactor, parsed("--drain-timeout", "3"), None)
    assert shared.keywords(Taking, port=1) == {"drainTimeout": 3, "port": 1}


@pytest.mark.parametrize("privileged", [True, False])
def test_what_may_change_holds_from_the_start(reactor: HandReactor, privileged: bool) -> None:
    options = parsed(
        *("--port", "0", "--max-connections", "8", "--memory-limit", "8K", "--log-limit", "5"),
        *("--drain-timeout", "3", "--line-limit", "7"),
    )
    options.processes = 4
    shared = common(reactor, options, None)
    service = AllOrNone()
    listen(options, shared, service)
    if privileged:  # or as `twist` does
        service.privilegedStartService()
    service.startService()
    assert shared.admission.limits.connections == 2
    assert shared.memory.most == 2048
    assert shared.journal.most == 5
    assert [listener.drainTimeout for listener in service.listeners()] == [3, 3]
    reactor.result(service.stopService())


def test_each_counter_is_defined_once() -> None:
    table = OPERATING.read_text().partition("\n| counter | counts |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Counters().counts())


def test_the_documented_limits_are_those_of_the_table() -> None:
    table = OPERATING.read_text().partition("\n| option | default")[2].partition("\n\n")[0]
    rows = [
        tuple(cell.strip() for cell in row.strip("|").split("|")) for row in table.splitlines()[2:]
    ]
    assert rows == [
        (f"`--{each.name}`", each.usual, each.protects, each.counter)
        for each in SETTINGS
        if each.protects
    ]


@pytest.mark.parametrize(
    ("said", "reloads"), [("Read again on SIGHUP", True), ("Need a restart", False)]
)
def test_what_is_read_again_and_what_takes_a_restart_is_documented(
    said: str, reloads: bool
) -> None:
    [listed] = re.findall(rf"^- {said}: (.*?)\.$", OPERATING.read_text(), re.DOTALL | re.MULTILINE)
    assert listed.split() == ", ".join(
        f"`--{each.name}`" for each in SETTINGS if each.reloads == reloads
    ).split(" ")


def test_the_manual_page_describes_every_option_of_the_server() -> None:
    section = page(main).partition(".SH SERVER OPTIONS\n")[2].partition("\n.SH ")[0]
    told = plain(section)
    assert FILES in told
    names = re.findall(r"^\.TP\n(?:-p, )?--(\S+)", told, re.MULTILINE)
    assert names == [*(each.name for each in SETTINGS), "check", "version", "help"]
    for each in SETTINGS:
        stands = "" if each.reader is None else f" {each.reader.stands}"
        says = each.description.replace("`", "")
        assert f"--{each.name}{stands}\n{says}" in told
