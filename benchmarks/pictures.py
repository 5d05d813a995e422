"""Bars and lines as SVG, to be read on light and on dark backgrounds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

#: (x, y), with x growing.
Points = Sequence[tuple[float, float]]

# Of middling brightness, so that they stand out from white and from black.
OURS = "#e8590c"
OTHERS = "#748ffc"
COLOURS = {
    "sockservice": OURS,
    "store": "#0ca678",
    "subclass": "#f59f00",
    "tls": "#9c36b5",
    "stock-tls": "#99582a",
    "stock": "#4c6ef5",
    "uvloop-protocol": "#37b24d",
    "asyncio-protocol": "#be4bdb",
    "asyncio-streams": "#e64980",
    "socketserver": "#15aabf",
    "fdatasync": "#fa5252",
    "relp": "#a0760b",
    "c": "#868e96",
}
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #7d8590; }
.title { font-size: 14px; font-weight: 600; }
.ours { font-weight: 600; }
.rule { stroke: #8b949e; stroke-width: 1; stroke-opacity: .35; }
.mark { stroke: #8b949e; stroke-width: 1; stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
@media (prefers-color-scheme: light) { text { fill: #57606a; } }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9; } }"""


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    text: str
    is_ours: bool = False


def drawing(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">'
    )
    name = f"<title>{escape(title)}</title>"
    return "\n".join([head, name, f"<style>\n{STYLE}\n</style>", *parts, "</svg>"]) + "\n"


def label(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def bars(title: str, panels: Mapping[str, Sequence[Bar]], mark: float | None = None) -> str:
    """Draw panels of bars, two beside one another, each to a scale of its own from 0.

    `mark` is a value with a line through all bars of a panel.
    """
    width, row, names, room, gap = 400.0, 20.0, 116.0, 56.0, 40.0
    parts, top, bottom = [], 0.0, 0.0
    for number, (name, panel) in enumerate(panels.items()):
        if number % 2 == 0:
            top = bottom
        left = number % 2 * width
        most = max(bar.value for bar in panel)
        scale = (width - names - room - gap / 2) / most
        parts.append(label(left + 4, top + 22, name, "title"))
        for at, bar in enumerate(panel):
            y = top + 34 + at * row
            kind = "ours" if bar.is_ours else ""
            colour = OURS if bar.is_ours else OTHERS
            length = max(1.0, bar.value * scale)
            parts += [
                label(left + names - 8, y + 13, bar.name, kind, "end"),
                f'<rect x="{left + names:.1f}" y="{y + 2:.1f}" width="{length:.1f}" '
                f'height="{row - 5:.1f}" rx="2" fill="{colour}"/>',
                label(left + names + length + 6, y + 13, bar.text, kind),
            ]
        end = top + 34 + len(panel) * row
        if mark is not None and mark <= most:
            x = left + names + mark * scale
            parts.append(rule(x, top + 32, x, end, "mark"))
        bottom = max(bottom, end + gap / 2)
    return drawing(2 * width, bottom, title, parts)


def lines(title: str, across: str, up: str, series: Mapping[str, Points]) -> str:
    """Draw a line for each series, both axes logarithmic, its name at its end."""
    width, height, left, right, top, bottom = 640.0, 360.0, 64.0, 140.0, 44.0, 48.0
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x_ticks, y_ticks = sorted(set(xs)), ticks(min(ys), max(ys))
    place_x = onto(x_ticks[0], x_ticks[-1], left, width - right)
    place_y = onto(y_ticks[0], y_ticks[-1], height - bottom, top)
    parts = [label(4, 22, f"{title}: {up}", "title")]
    for tick in y_ticks:
        y = place_y(tick)
        parts += [
            rule(left, y, width - right, y),
            label(left - 8, y + 4, short(tick), "", "end"),
        ]
    parts += [label(place_x(x), height - bottom + 18, short(x), "", "middle") for x in x_ticks]
    parts.append(label((left + width - right) / 2, height - 10, across, "", "middle"))
    ends = {name: place_y(points[-1][1]) for name, points in series.items()}
    for name, y in apart(ends, 14.0).items():
        colour = COLOURS.get(name, OTHERS)
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in series[name])
        last = place_x(series[name][-1][0])
        parts.append(f'<polyline points="{path}" class="line" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{place_x(x):.1f}" cy="{place_y(v):.1f}" r="3" fill="{colour}"/>'
            for x, v in series[name]
        ]
        if last < width - right or y != ends[name]:
            parts.append(rule(last + 4, ends[name], width - right + 10, y))
        kind = "ours" if colour == OURS else ""
        parts.append(
            f'<rect x="{width - right + 12:.1f}" y="{y - 4:.1f}" width="8" height="8" '
            f'rx="2" fill="{colour}"/>'
        )
        parts.append(label(width - right + 24, y + 4, name, kind))
    return drawing(width, height, title, parts)


def onto(least: float, most: float, begin: float, end: float) -> Callable[[float], float]:
    """Map a logarithmic range onto a stretch of the picture."""
    span = math.log(most / least) or 1.0
    return lambda value: begin + (end - begin) * math.log(value / least) / span


def ticks(least: float, most: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, or these alone, from below the least to above the
    most."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1, 2, 5) if most < 50 * least else (1,)
    made = [step * 10.0**power for power in range(first, last + 2) for step in steps]
    begin = max(tick for tick in made if tick <= least)
    end = min(tick for tick in made if tick >= most and tick > begin)
    return [tick for tick in made if begin <= tick <= end]


def apart(places: Mapping[str, float], least: float) -> dict[str, float]:
    """Push places apart that are nearer to one another than `least`; they keep their order."""
    names = sorted(places, key=lambda name: places[name])
    moved: dict[str, float] = {}
    below = -math.inf
    for name in names:
        below = moved[name] = max(places[name], below + least)
    # As far up again as they were pushed down beyond the last.
    excess = (below - max(places.values())) / 2 if names else 0.0
    above = math.inf
    for name in reversed(names):
        above = moved[name] = min(moved[name] - excess, above - least)
    below = -math.inf
    for name in names:
        below = moved[name] = max(moved[name], below + least)
    return moved


def short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
