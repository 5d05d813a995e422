"""Read the options that a TOML file holds: the file of `--config`."""

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.python import usage

from sockservice.files import contents
from sockservice.limits.readers import placed
from sockservice.limits.setting import Setting
from sockservice.limits.settings import SETTINGS
from sockservice.wire.escaping import printable

#: The settings that may stand in a file, by their keys.
KEYS = {each.name: each for each in SETTINGS if each.name != "config"}

#: What stands for values that may be written as TOML's whole numbers.
_WHOLE = ("NUMBER", "SECONDS", "BYTES", "SIZE", "AGE", "PORT")
#: Characters of a value that an error shows.
_SHOWN = 60


def table(path: str, wrong: list[str]) -> dict[str, Any]:
    """Return what the file at `path` says, where keys and types can be; add to `wrong` the rest.

    :raises ValueError: It can't be read; one line.
    """
    read = contents(path)
    # A file that was cut short by accident is never taken for one that says less.
    if not read.endswith(b"\n"):
        raise ValueError("its last line does not end, and may be half of one" if read else _EMPTY)
    try:
        found = tomllib.loads(read.decode())
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise ValueError(f"not in UTF-8 (at line {line})") from problem
    except RecursionError as problem:
        raise ValueError("nested too deeply") from problem
    if not found:
        raise ValueError(_EMPTY)
    good = {}
    for key, value in found.items():
        if key not in KEYS:
            wrong.append(f"unknown key {key}{_near(key, KEYS)}")
        elif wanted := _unlike(KEYS[key], value):
            wrong.append(f"{key} = {_shown(value)}: {wanted} is wanted")
        else:
            good[key] = value
    return good


_EMPTY = "it holds no setting"


def values(
    found: Mapping[str, Any], place: Callable[[str], str], wrong: list[str]
) -> dict[str, Any]:
    """Return the values of the options that a table holds, by their names.

    `place` gives the whole path of a file that is named as `@FILE`. What is no value that the
    option takes is added to `wrong`, in one line.
    """
    read = {}
    for key, value in found.items():
        try:
            read[key] = _value(KEYS[key], value, place)
        except ValueError as problem:
            wrong.append(str(problem))
    return read


def _value(setting: Setting, value: Any, place: Callable[[str], str]) -> Any:
    if setting.reader is None:
        return value
    each = value if isinstance(value, list) else [value]
    read: list[Any] = []
    for number, one in enumerate(each, 1):
        text = _listener(one, number) if isinstance(one, dict) else str(one)
        try:
            made = setting.reader.read(placed(text, place))
        except (ValueError, usage.UsageError) as problem:
            raise ValueError(f"{setting.name} = {_shown(one)}: {problem}") from None
        if not setting.repeated:
            return made
        read += made
    return read


def _unlike(setting: Setting, value: Any) -> str:
    """Return what is wanted, if a value is of no type that TOML has for such a setting."""
    if setting.reader is None:
        right, wanted = isinstance(value, bool), "true or false"
    elif setting.name == "listen":
        right = isinstance(value, list) and all(isinstance(each, (str, dict)) for each in value)
        wanted = "tables [[listen]] or a list of texts"
    elif setting.repeated:
        right = isinstance(value, str) or (
            isinstance(value, list) and all(isinstance(each, str) for each in value)
        )
        wanted = "a text or a list of texts"
    elif setting.reader.stands in _WHOLE:
        right = isinstance(value, (int, str)) and not isinstance(value, bool)
        wanted = "a whole number or a text"
    else:
        right, wanted = isinstance(value, str), "a text"
    return "" if right else wanted


def _listener(listener: dict[str, Any], number: int) -> str:
    """Return a table of a listener as `PROTOCOL@ENDPOINT`.

    What else is in the table becomes parameters of the endpoint.
    """
    known = ("protocol", "endpoint")
    for key, value in listener.items():
        right = isinstance(value, str) or (key not in known and type(value) is int)
        if not right:
            wanted = "a text" if key in known else "a text or a whole number"
            raise ValueError(f"listen {number}: {key} = {_shown(value)}: {wanted} is wanted")
    if not listener.get("endpoint"):
        near = next((_near(key, known) for key in listener if key not in known), "")
        raise ValueError(f"listen {number} has no endpoint{near}")
    protocol = listener.get("protocol")
    parts = [(f"{protocol}@" if protocol else "") + listener["endpoint"]]
    for key, value in listener.items():
        if key not in known:
            parts.append(f"{_quoted(key)}={_quoted(str(value))}")
    return ":".join(parts)


def _quoted(text: str) -> str:
    """Write a part of an endpoint string so that nothing in it separates."""
    return "".join(f"\\{each}" if each in "\\:=" else each for each in text)


def _near(key: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(key.replace("_", "-").lower(), list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def _shown(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
