"""The client's file of settings: targets by name, and how they are reached."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: Names the file, in place of the usual one.
VARIABLE = "SOCKSERVICE_CONFIG"
#: Keys whose values are names of files, seen from the folder of the settings.
PATHS = ("cafile", "cert", "key")


class Broken(Exception):
    """The settings can't be used; the text says where and why, in one line."""


class Named(NamedTuple):
    """A target, and what is set for it: a value and its place in the file for each key."""

    target: str | None
    settings: dict[str, tuple[Any, str]]


def place(environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the path of the file, and whether it has to be there."""
    if path := environment.get(VARIABLE):
        return path, True
    home = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # as its specification asks
        home = os.path.expanduser("~/.config")
    return os.path.join(home, "sockservice", "client.toml"), False


class Configuration:
    """What the file at `path` says; `known` are the keys of options.

    :raises Broken: It can't be read, or says what nobody understands.
    """

    def __init__(self, path: str, required: bool, known: Iterable[str]) -> None:
        self._path = path
        self._known = [*known, "target"]
        self._top = _read(path, required)
        self._named: dict[str, Any] = self._top.pop("targets", {})
        if not isinstance(self._named, dict):
            raise Broken(f"{path}: targets is no table")
        self._check(self._top, "", ["targets"])
        for name, table in self._named.items():
            where = f"targets.{name}"
            if not name or ":" in name:
                raise Broken(f"{path}: {where}: a name has no colon, and is not empty")
            if isinstance(table, dict):
                self._check(table, f"{where}.")
                if "target" not in table:
                    raise Broken(f"{path}: {where} has no target")
            elif not isinstance(table, str):
                raise Broken(f"{path}: {where} is neither a target nor a table")

    @property
    def names(self) -> list[str]:
        """The names of targets."""
        return list(self._named)

    def found(self, target: str | None) -> Named:
        """Return what `target` stands for: a name, a target, or None for that of the file.

        :raises Broken: It can be neither.
        """
        settings = {key: (value, key) for key, value in self._settings(self._top)}
        target = self._top.get("target") if target is None else target
        if target is None or ":" in target:
            return Named(target, settings)
        if target not in self._named:
            if not self._named:
                return Named(target, settings)
            near = _near(target, self._named)
            raise Broken(f"{target} is neither HOST:PORT nor a target in {self._path}{near}")
        table = self._named[target]
        if isinstance(table, str):
            return Named(table, settings)
        where = f"targets.{target}"
        settings |= {key: (value, f"{where}.{key}") for key, value in self._settings(table)}
        return Named(table["target"], settings)

    def _settings(self, table: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        for key, value in table.items():
            if key in PATHS:
                value = os.path.join(os.path.dirname(self._path), os.path.expanduser(value))
            if key != "target":
                yield key, value

    def _check(self, table: dict[str, Any], where: str, more: Iterable[str] = ()) -> None:
        for key, value in table.items():
            if key not in self._known:
                near = _near(key, [*self._known, *more])
                raise Broken(f"{self._path}: unknown key {where}{key}{near}")
            if key in (*PATHS, "target") and not isinstance(value, str):
                raise Broken(f"{self._path}: {where}{key} is not in quotes")


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def _read(path: str, required: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read().decode())
    except FileNotFoundError as problem:
        if not required:
            return {}
        raise Broken(f"{path}: {problem.strerror}") from problem
    except OSError as problem:
        raise Broken(f"{path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise Broken(f"{path}: not in UTF-8 (at line {line})") from problem
    except tomllib.TOMLDecodeError as problem:
        raise Broken(f"{path}: {problem}") from problem
