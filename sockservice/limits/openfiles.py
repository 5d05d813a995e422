"""Raise the limit on open files to what the connections need."""

import resource

from twisted.logger import Logger

from sockservice.wire.plurals import counted

#: Descriptors for everything but connections that are let in: listeners, the log, the
#: store, the reactor, and those turned away, who are given time to read why.
OTHERS = 64 + 1000

log = Logger()


def reserve(files: int) -> None:
    """Raise the limit on open files to `files` and some others, as far as it is permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allow(connections: int) -> None:
    """Raise the limit on open files as far as needed and permitted; warn if that's not enough.

    0 connections stands for as many as possible.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHERS if connections else hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            log.warn(
                "{allowed} allowed, but only {files} (RLIMIT_NOFILE): more will have to wait",
                allowed=counted(connections, "connection is", "connections are"),
                files=counted(most, "open file"),
            )
