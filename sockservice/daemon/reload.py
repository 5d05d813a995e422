"""SIGHUP: read again what may have changed."""

from twisted.logger import Logger
from twisted.python import usage

from sockservice.daemon.allornone import AllOrNone
from sockservice.daemon.options import Options
from sockservice.daemon.shared import Shared
from sockservice.errors import CannotListen
from sockservice.limits import openfiles
from sockservice.net.bind.reuseport import Sharing

log = Logger()


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
        shared.admission.change(fresh.limits())
        shared.memory.most = fresh.share("memory-limit")
        shared.journal.most = fresh["log-limit"]
        service.change(fresh["line-limit"], fresh["drain-timeout"])
        openfiles.allow(fresh.share("max-connections"))
    problems[:0] = service.reload()
    for problem in problems:
        log.error("SIGHUP: {problem}; what was there before stays", problem=problem)
    if not problems:
        log.info("SIGHUP: limits, networks and certificates have been read again")
