"""What may change while the service runs: at its start, and when SIGHUP has it read again."""

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python import usage

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.options import Options
from sockservice.daemon.shared import Shared
from sockservice.errors import CannotListen
from sockservice.limits.setting import Running
from sockservice.limits.settings import SETTINGS
from sockservice.net.bind.reuseport import Sharing

log = Logger()


class Tuning(Service):
    """At its start, let hold what `options` say of all that may change later."""

    def __init__(self, options: Options, shared: Shared, service: AllOrNone) -> None:
        self._tune = lambda: _tune(options, shared, service)

    def startService(self) -> None:
        super().startService()
        self._tune()


def reload(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Read again what may have changed; what is bad stays as it was, and is told."""
    problems: list[Exception] = []
    try:
        fresh = options.again()
        if isinstance(shared.ask, Sharing) and fresh.limits().perSource:
            shared.ask.steer()
    except (usage.UsageError, CannotListen) as bad:
        problems.append(bad)
    else:
        _tune(fresh, shared, service)
    problems[:0] = service.reload()
    for problem in problems:
        log.error("SIGHUP: {problem}; what was there before stays", problem=problem)
    if not problems:
        log.info("SIGHUP: limits, networks and certificates have been read again")


def _tune(options: Options, shared: Shared, service: AllOrNone) -> None:
    """Let hold what `options` say of all that may change."""
    shared.admission.change(options.limits())
    running = Running(shared.memory, shared.journal, service.listeners)
    for setting in SETTINGS:
        if setting.live is not None:
            setting.live(running, options.share(setting.name))
