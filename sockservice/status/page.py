"""The page, with all that it needs in it; whatever peers chose is text in it, and no markup."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from sockservice.store.nats.nodes import described
from sockservice.wire.plurals import plural

#: Where a chart's samples begin and end: seconds, and the height.
WIDE, HIGH = 300, 60

#: What stands for a figure that there is not.
NONE = "-"

#: The charts: what they are called, the place in a sample, and how values are written.
CHARTS = (
    ("Lines a second", 1, "number"),
    ("Refusals a second", 2, "number"),
    ("Connections", 4, "number"),
    ("99 % of lines durable within", 6, "seconds"),
)

#: Sections that hold a table: their names, and how they are headed.
TABLES = {
    "listeners": "Listeners",
    "store": "Store",
    "busiest": "Busiest connections",
    "heaviest": "Connections that hold most",
    "workers": "Workers",
    "options": "Options in force",
}


class Page:
    """Makes the page, and the sections of it that change."""

    def __init__(self) -> None:
        self._text = files("sockservice.status").joinpath("page.html").read_text("utf-8")
        #: What a browser may do with it: run and show what is in it, and hear from here.
        self.policy = (
            f"default-src 'none'; script-src {self._hash('script')}; style-src "
            f"{self._hash('style')}; connect-src 'self'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )

    def _hash(self, tag: str) -> str:
        """Return the hash that permits what is in a tag; CSP level 2, 4.2.5."""
        [held] = re.findall(rf"<{tag}>(.*?)</{tag}>", self._text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()}'"

    def made(self, state: Mapping[str, Any]) -> bytes:
        """Return the page with the sections of `state`."""
        made = sections(state)
        parts = [f'<div id="{name}">{made[name]}</div>' for name in ("health", "figures", "charts")]
        for name, heading in TABLES.items():
            parts.append(
                f'<section><h2 id="{name}-heading">{heading}</h2><div class="wide" id="{name}" '
                f'tabindex="0" role="region" aria-labelledby="{name}-heading">{made[name]}</div>'
                "</section>"
            )
        return self._text.replace("<!-- sections -->", "\n".join(parts)).encode()


def sections(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTML of each section; that of the options only if the state has them."""
    made = {
        "health": _health(state),
        "figures": _figures(state),
        "charts": "".join(_chart(*chart, state["history"]) for chart in CHARTS),
        "listeners": _listeners(state["listeners"]),
        "store": _store(state["store"]),
        "busiest": _connections(state["busiest"]),
        "heaviest": _connections(state["heaviest"]),
        "workers": _workers(state["workers"]),
    }
    made["charts"] = f'<div class="charts">{made["charts"]}</div>'
    if "options" in state:
        made["options"] = _options(state["options"])
    return made


def number(value: float | None) -> str:
    """Write a number for people."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def size(value: float | None) -> str:
    """Write bytes for people."""
    if value is None:
        return NONE
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return (
        f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 10 else f"{value:.1f} {units[0]}"
    )


def seconds(value: float | None) -> str:
    """Write a duration for people."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 120:
        return f"{value:.0f} s"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value / length:.0f} {unit}"
    return f"{value / 60:.0f} min"


def moment(value: float | None) -> str:
    """Write a time since 1970 for people."""
    if value is None:
        return NONE
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC"


_WRITERS = {"number": number, "seconds": seconds}


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], none: str, marked: Sequence[bool] = ()
) -> str:
    """Return a table; a head that begins with # is of numbers, one with ~ of long texts."""
    kinds = {"#": ' class="number"', "~": ' class="long"'}
    classes = [kinds.get(head[0], "") for head in heads]
    written = []
    for at, row in enumerate(rows):
        cells = [f'<th scope="row">{escape(row[0])}</th>']
        cells += [
            f"<td{kind}>{escape(cell)}</td>"
            for kind, cell in zip(classes[1:], row[1:], strict=True)
        ]
        differs = ' class="differs"' if marked and marked[at] else ""
        written.append(f"<tr{differs}>{''.join(cells)}</tr>")
    if not written:
        return f'<p class="quiet">{escape(none)}</p>'
    top = "".join(
        f'<th scope="col"{kind}>{escape(head.lstrip("#~"))}</th>'
        for head, kind in zip(heads, classes, strict=True)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(written)}</tbody></table>"


def _health(state: Mapping[str, Any]) -> str:
    health = state["health"]
    words = []
    for name in ("live", "ready"):
        well = health[name]
        words.append(
            f'<span class="{"good" if well else "bad"}">{"" if well else "not "}{name}</span>'
        )
    why = f"<p>{escape('; '.join(health['why']))}</p>" if health["why"] else ""
    since = f"version {state['version']}, up for {seconds(state['uptime'])}"
    return f"<p>{', '.join(words)}; {escape(since)}</p>{why}"


def _figures(state: Mapping[str, Any]) -> str:
    rates = state["rates"]
    limits = state["limits"]
    lines, datagrams = rates.get("lines", 0), rates.get("datagrams", 0)
    connections = state["connections"]
    tiles = [
        (
            f"{plural(lines, 'line')} a second",
            number(lines),
            f"{number(state['counters']['lines'])} so far",
        ),
        (f"{plural(datagrams, 'datagram')} a second", number(datagrams), ""),
        ("refused a second", number(rates.get("refused", 0)), ""),
        (
            plural(connections, "connection"),
            number(connections),
            _of(limits["max-connections"], number),
        ),
        ("bytes held", size(state["held"]), _of(limits["memory-limit"], size)),
        ("reactor late by", seconds(state["late"]), ""),
    ]
    made = []
    for name, value, more in tiles:
        quiet = f'<span class="quiet">{escape(more)}</span>'
        made.append(f"<li><b>{escape(value)}</b>{escape(name)} {quiet}</li>")
    return f'<ul class="tiles">{"".join(made)}</ul>'


def _of(limit: int, write: Any) -> str:
    return f"of {write(limit)}" if limit else "no limit"


def _chart(name: str, place: int, kind: str, history: Sequence[Sequence[Any]]) -> str:
    write = _WRITERS[kind]
    values = [sample[place] for sample in history]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    most = max(known)
    path = []
    draws = False
    for at, value in enumerate(values, WIDE - len(values)):
        if value is None:
            draws = False
            continue
        height = HIGH - 2 - (HIGH - 4) * (value / most if most else 0)
        path.append(f"{'L' if draws else 'M'}{at} {height:.1f}")
        draws = True
    said = f"now {write(values[-1])}, at most {write(most)} in five minutes"
    return (
        f'<figure><h2>{escape(name)}</h2><svg viewBox="0 0 {WIDE} {HIGH}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(f"{name}: {said}")}">'
        f'<path d="{"".join(path)}"/></svg><figcaption class="quiet">{escape(said)}</figcaption>'
        "</figure>"
    )


def _listeners(listeners: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for each in listeners:
        counters, rates = each["counters"], each["rates"]
        rows.append(
            (
                each["listener"],
                each["protocol"],
                number(each["connections"]),
                number(rates.get("lines", 0) + rates.get("datagrams", 0)),
                number(counters.get("lines", 0) + counters.get("datagrams", 0)),
                _refusals(each),
                moment(each["expires"]) if each["expires"] else "",
            )
        )
    heads = ("listener", "protocol", "#connections", "#a second", "#so far")
    return _table((*heads, "~refused and turned away", "certificate until"), rows, "none")


def _refusals(listener: Mapping[str, Any]) -> str:
    """Return what a listener has refused, by reason."""
    names = {"refused": "lines", "datagramsRefused": "datagrams", "turnedAway": "connections"}
    parts = []
    for counter, name in names.items():
        reasons = listener["reasons"].get(counter, {})
        if reasons:
            said = ", ".join(f"{why} {number(count)}" for why, count in sorted(reasons.items()))
            parts.append(f"{name}: {said}")
    others = ("timedOut", "http", "mismatched", "overheld", "starved", "suspect", "throttled")
    parts += [f"{name} {number(n)}" for name in others if (n := listener["counters"].get(name))]
    return "; ".join(parts)


def _store(store: Mapping[str, Any] | None) -> str:
    if store is None:
        return '<p class="quiet">There is none: lines are acknowledged as they arrive.</p>'
    rows = [
        ("engine", store["engine"]),
        ("state", f"refuses lines: {store['failing']}" if store["failing"] else "stores"),
        ("lines stored since the start", number(store["stored"])),
        ("last line's number", number(store.get("last"))),
        ("last commit", moment(store["lastCommit"])),
        ("commits, failed ones", f"{number(store['commits'])}, {number(store['commitsFailed'])}"),
        ("waiting lines, the oldest", f"{number(store['awaiting'])}, {seconds(store['oldest'])}"),
        ("waiting bytes", f"{size(store['pending'])} of {size(store['pendingLimit'])}"),
        ("acknowledged within, half, 99 %", f"{seconds(store['p50'])}, {seconds(store['p99'])}"),
        ("file, log", f"{size(store.get('file'))}, {size(store.get('log'))}"),
    ]
    if "nodes" in store:
        rows[-1:] = [
            ("bytes of the stream", size(store.get("file"))),
            ("nodes", described(store)),
            ("changes of the leader", number(store["leaderChanges"])),
            ("connections to nodes lost", number(store["connectionsLost"])),
        ]
    return _table(("figure", "value"), rows, "")


def _connections(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ("peer", "listener", "worker", "#age", "#lines", "#a second", "#refused", "#held")
    return _table(
        (*heads, "#unanswered"),
        [
            (
                each["peer"],
                each["listener"],
                str(each.get("worker", "")),
                seconds(each["age"]),
                number(each["lines"]),
                number(each["rate"]),
                number(each["refused"]),
                size(each["held"]),
                number(each["unanswered"]),
            )
            for each in rows
        ],
        "none at the moment",
    )


def _workers(workers: Sequence[Mapping[str, Any]] | None) -> str:
    if workers is None:
        return '<p class="quiet">One process does all.</p>'
    heads = ("worker", "process", "state", "#connections", "#held", "#memory", "#processor time")
    return _table(
        (*heads, "#heard"),
        [
            (
                str(each["worker"]),
                str(each["pid"] or NONE),
                "retires" if each["retiring"] else "serves" if each["ready"] else "starts",
                number(each["connections"]),
                size(each["held"]),
                size(each["resident"]),
                seconds(each["cpu"]),
                f"{seconds(each['silent'])} ago",
            )
            for each in workers
        ],
        "none: those that died are replaced",
    )


def _options(options: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"--{each['option']}", each["value"], each["default"] if each["differs"] else "")
        for each in options
    ]
    marked = [bool(each["differs"]) for each in options]
    return _table(("option", "~value", "~default, where that is another"), rows, "", marked)
