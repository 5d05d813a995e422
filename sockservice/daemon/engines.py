"""Create the storage engine that a URL names."""

from collections.abc import Callable
from typing import Any

from sockservice import importing
from sockservice.store.engine import Backend, Retention


def _sqlite(path: str, retention: Retention) -> Backend:
    from sockservice.store.sqlite import SQLite

    return SQLite(path, retention)


def _nats(place: str, retention: Retention) -> Backend:
    from sockservice.store.nats.place import parsed

    found = parsed(f"nats:{place}")
    try:
        from sockservice.store.nats.engine import JetStream
    except ModuleNotFoundError as missing:
        raise ValueError(
            f"it needs the extra nats, pip install 'sockservice[nats]' ({missing})"
        ) from missing
    return JetStream(found, retention)


#: The engines, by the scheme of a store's URL.
ENGINES: dict[str, Callable[[str, Retention], Backend]] = {"sqlite": _sqlite, "nats": _nats}


def backend(url: str, retention: Retention, reserve: int = 0, longest: int = 0) -> Backend:
    """Return the engine for a store's URL, `SCHEME:PLACE`; it removes what is not retained.

    The scheme may also be `module.Class`, which is called like those in `ENGINES`. An engine
    that has an attribute `reserve` is given that, bytes that have to stay free; one that has
    `longest` is given that, bytes of the longest line.

    :raises ValueError: There is no such engine, or no place is named.
    """
    scheme, _, place = url.partition(":")
    if scheme not in ENGINES and not (place and "." in scheme.strip(".")):
        raise ValueError(f"no store called {scheme!a}; there is sqlite:PATH, nats://HOST/STREAM")
    if not place:
        raise ValueError(f"{url}: no path")
    if scheme in ENGINES:
        return _told(ENGINES[scheme](place, retention), reserve, longest)
    try:
        module, _, engine = scheme.rpartition(".")
        made: Backend = getattr(importing.module(module), engine)(place, retention)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem
    return _told(made, reserve, longest)


def _told(made: Any, reserve: int, longest: int) -> Backend:
    for name, value in (("reserve", reserve), ("longest", longest)):
        if hasattr(made, name):
            setattr(made, name, value)
    engine: Backend = made
    return engine
