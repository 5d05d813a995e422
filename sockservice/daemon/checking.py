"""Say what options would serve, with nothing bound and nothing changed: `--check`."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.listeners import Listeners
from sockservice.daemon.options import Options, report
from sockservice.daemon.service import common, listen, statusListener
from sockservice.errors import CannotStart
from sockservice.limits.setting import Setting
from sockservice.limits.settings import SETTINGS
from sockservice.net.bind.sockets import Plan
from sockservice.store.groupcommit import Store
from sockservice.store.nats.place import concealed
from sockservice.wire.escaping import printable
from sockservice.wire.plurals import counted

#: What the list of listeners and the line of the store say.
_SAID = ("host", "port", "listen", "store")


class Checked(Options):
    """The options of `twistd sockservice`, of which `--check` says what they would serve."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        super().parseOptions(options)
        if self.checking:
            raise SystemExit(check(self))


def check(options: Options) -> int:
    """Print what would be served, or each error in a line on stderr; return the status."""
    from twisted.internet import reactor

    _go(options.parent or {})
    problems: list[str] = []
    lines = [*_listeners(options, reactor, problems), *_store(options, problems)]
    if problems:
        report(problems)
        return 1
    for line in [*lines, *_settings(options)]:
        print(printable(line))
    return 0


def _go(twistd: Any) -> None:
    """Go to where twistd would, before listeners find their files."""
    root, folder = twistd.get("chroot"), twistd.get("rundir") or "."
    if root:
        os.chroot(root)
        folder = "/" if folder == "." else folder
    os.chdir(folder)


def _listeners(options: Options, reactor: Any, problems: list[str]) -> list[str]:
    plan = Plan()
    store = None if options.backend is None else Store(reactor, options.backend)
    held = options["workers"] > 1
    shared = common(reactor, options, store, held=held, sockets=plan.sockets)
    service = AllOrNone(store, shared.counters, shared.journal, reactor=reactor)
    listen(options, shared, service)
    wrong = len(problems)
    for each in service:
        if isinstance(each, Listeners):
            problems += _opened(each, plan)
    status = None
    if options["status"] is not None:
        service.status = status = statusListener(options, shared, service, lambda: "starting")
        problems += _wrong(status.open)
    if len(problems) == wrong:
        problems += _wrong(service.distinguish)
    labels = [each.label.replace("listening", "would listen", 1) for each in service.listeners()]
    if status is not None:
        labels.append(status.label.replace("listening", "would listen", 1))
        status.abandon()
    for each in service:
        if isinstance(each, Listeners):
            each.close()
    return labels


def _opened(listeners: Listeners, plan: Plan) -> list[str]:
    """Open listeners by the plan; return what is wrong with them."""
    plan.passed, plan.guessed = socket.SOCK_STREAM, False
    wrong = _wrong(listeners.open)
    if wrong and plan.guessed:
        # It may be meant for datagrams.
        plan.passed = socket.SOCK_DGRAM
        return wrong if _wrong(listeners.open) else []
    return wrong


def _wrong(tried: Callable[[], object]) -> list[str]:
    try:
        tried()
    except CannotStart as problem:
        return [str(problem)]
    return []


def _store(options: Options, problems: list[str]) -> Iterator[str]:
    if options.backend is None:
        return
    said = ["not looked at"]
    look: Callable[[], str] | None = getattr(options.backend, "check", None)
    if look is not None:
        problems += _wrong(lambda: said.append(look()))
    yield f"store {concealed(options['store'])}: {said[-1]}"


def _settings(options: Options) -> Iterator[str]:
    for setting in SETTINGS:
        value = options[setting.name]
        if setting.name not in _SAID and value != setting.default and value is not False:
            usual = setting.written(setting.default)
            said = "" if value is True else f" {_written(setting, value)}, not {usual}"
            yield f"--{setting.name}{said}"


def _written(setting: Setting, value: Any) -> str:
    if setting.limit == "access" and value:
        return counted(len(value), "network")
    return setting.written(value)
