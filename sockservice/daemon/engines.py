"""Create the storage engine that a URL names."""

from collections.abc import Callable
from typing import Any

from sockservice import importing
from sockservice.store.engine import Backend, Retention


def _sqlite(path: str, retention: Retention) -> Backend:
    from sockservice.store.sqlite import SQLite

    return SQLite(path, retention)


#: The engines, by the scheme of a store's URL.
ENGINES: dict[str, Callable[[str, Retention], Backend]] = {"sqlite": _sqlite}


def backend(url: str, retention: Retention, reserve: int = 0) -> Backend:
    """Return the engine for a store's URL, `SCHEME:PLACE`; it removes what is not retained.

    The scheme may also be `module.Class`, which is called like those in `ENGINES`. An engine
    that has an attribute `reserve` is given that: bytes that have to stay free.

    :raises ValueError: There is no such engine, or no place is named.
    """
    scheme, _, place = url.partition(":")
    if scheme not in ENGINES and not (place and "." in scheme.strip(".")):
        raise ValueError(f"no store called {scheme!a}; there is {', '.join(ENGINES)}:PATH")
    if not place:
        raise ValueError(f"{url}: no path")
    if scheme in ENGINES:
        return _reserving(ENGINES[scheme](place, retention), reserve)
    try:
        module, _, engine = scheme.rpartition(".")
        made: Backend = getattr(importing.module(module), engine)(place, retention)
    except (Exception, SystemExit) as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem
    return _reserving(made, reserve)


def _reserving(made: Any, reserve: int) -> Backend:
    if hasattr(made, "reserve"):
        made.reserve = reserve
    engine: Backend = made
    return engine
