"""Which nodes of a stream are there, and since when: told to the log, and in figures."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from sockservice.wire.plurals import counted, grouped

#: Seconds without a word from a node after which it is said to be gone.
GONE = 5.0
#: Seconds without a leader or a majority after which the log says so.
MISSING = 1.0

log = Logger()


@dataclass(slots=True)
class _Node:
    since: float  # that it is there, or gone
    gone: bool = False
    lag: int = 0
    losses: int = 0
    returns: int = 0


class Nodes:
    """Remembers what is said of the nodes of `stream`; `clock` gives seconds from anywhere."""

    def __init__(self, stream: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._nodes: dict[str, _Node] = {}
        self._missing: float | None = None  # since when there is no majority
        self._said = False  # that there is none
        self._changes = 0
        #: The node that leads the stream, or led it last.
        self.leader = ""

    def seen(self, told: Mapping[str, Any]) -> None:
        """Hear what the leader says, under `cluster` in STREAM.INFO; a lone node says nothing."""
        now = self._clock()
        leader = str(told.get("leader", ""))
        changed = self.leader not in ("", leader)
        if changed:
            log.info(
                "the stream {stream} is led by {leader}, no more by {before}",
                stream=self._stream,
                leader=leader or "its only node",
                before=self.leader,
            )
        self._changes += changed
        self.leader = leader
        if leader:
            self._there(leader, 0)
        names = {leader}
        for each in told.get("replicas") or ():
            name, silent = str(each["name"]), each.get("active", 0) / 10**9
            names.add(name)
            if each.get("offline") or silent > GONE:
                self._away(name, now - silent)
            else:
                self._there(name, each.get("lag", 0) or int(not each.get("current")))
        # The others have become nodes of other streams.
        for name in self._nodes.keys() - names:
            del self._nodes[name]
        gone = sorted(each.since for each in self._nodes.values() if each.gone)
        needed = len(names) // 2 + 1
        if len(names) - len(gone) < needed:
            # It leads on for a while, and nothing becomes durable.
            self._without(gone[len(names) - needed], "other nodes are gone", ())
        elif self._missing is not None:
            if self._said:
                log.info(
                    "the stream {stream} has a majority again, after {seconds:.1f} s",
                    stream=self._stream,
                    seconds=now - self._missing,
                )
            self._missing, self._said = None, False

    def unanswered(self, reason: str, silent: Collection[str]) -> None:
        """Hear that no node leads the stream, as far as can be told, and which do not answer."""
        self._without(self._clock(), reason, silent)
        assert self._missing is not None
        for name in sorted(self._nodes.keys() & silent):
            self._away(name, self._missing)

    def _without(self, since: float, reason: str, silent: Collection[str]) -> None:
        if self._missing is None:
            self._missing = since
        passed = self._clock() - self._missing
        if not self._said and passed >= MISSING:
            self._said = True
            log.warn(
                "the stream {stream} has no majority for {seconds:.1f} s: {reason}{silent}",
                stream=self._stream,
                seconds=passed,
                reason=reason,
                silent="".join(f"; {each} does not answer" for each in silent),
            )

    def figures(self, connected: str) -> dict[str, Any]:
        """Return what is known, fit for JSON; `connected` is the node that we are connected to."""
        now = self._clock()
        return {
            "majorityMissing": 0.0 if self._missing is None else round(now - self._missing, 1),
            "leaderChanges": self._changes,
            "nodes": [
                {
                    "node": name,
                    "leads": name == self.leader and self._missing is None,
                    "connected": name == connected,
                    "gone": round(now - each.since, 1) if each.gone else 0.0,
                    "lag": each.lag,
                    "losses": each.losses,
                    "returns": each.returns,
                }
                for name, each in sorted(self._nodes.copy().items())
            ],
        }

    def _there(self, name: str, lag: int) -> None:
        node = self._nodes.setdefault(name, _Node(self._clock()))
        node.lag = lag
        if node.gone:
            log.info(
                "the node {node} of the stream {stream} is there again, after {seconds:.1f} s{lag}",
                node=name,
                stream=self._stream,
                seconds=self._clock() - node.since,
                lag=f"; it lacks {grouped(lag, 'message')}" if lag else "",
            )
            node.gone, node.since = False, self._clock()
            node.returns += 1

    def _away(self, name: str, since: float) -> None:
        node = self._nodes.setdefault(name, _Node(since))
        if not node.gone:
            log.warn(
                "the node {node} of the stream {stream} is gone, for {seconds:.1f} s",
                node=name,
                stream=self._stream,
                seconds=self._clock() - since,
            )
            node.gone, node.since, node.lag = True, since, 0
            node.losses += 1


def described(figures: Mapping[str, Any]) -> str:
    """Return in words what `Nodes.figures` gave: for a report, and the status page."""
    parts = []
    for each in figures.get("nodes", ()):
        said = [each["node"]]
        if each["leads"]:
            said.append("leads")
        if each["gone"]:
            said.append(f"is gone for {each['gone']:,.0f} s")
        elif each["lag"]:
            said.append(f"lacks {grouped(each['lag'], 'message')}")
        if each["connected"]:
            said.append("is connected")
        if each["losses"]:
            said.append(f"was lost {counted(each['losses'], 'time')}")
        parts.append(" ".join(said[:2]) + "".join(f", {word}" for word in said[2:]))
    if figures.get("majorityMissing"):
        parts.insert(0, f"no majority for {figures['majorityMissing']:,.0f} s")
    return "; ".join(parts)
