"""Import what the user names: protocols, framings and storage engines."""

import importlib
import os
import sys
from types import ModuleType
from typing import Any


def module(name: str) -> ModuleType:
    """Import a module as twistd would: from the current folder too, and there first.

    :raises Exception: What the module raises, SystemExit among it; ModuleNotFoundError.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def named(name: str) -> Any:
    """Return the class that a dotted name, `module.Class`, stands for.

    :raises ValueError: There is none; the text says why, in one line.
    """
    moduleName, _, className = name.rpartition(".")
    try:
        found = module(moduleName)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{moduleName}.".startswith(f"{missing.name}."):
            raise ValueError(f"no such module: {ascii(moduleName)[1:-1]}") from missing
        raise ValueError(f"importing {moduleName} failed: {described(missing)}") from missing
    except (Exception, SystemExit) as problem:
        raise ValueError(f"importing {moduleName} failed: {described(problem)}") from problem
    made = getattr(found, className, None)
    if made is None:
        raise ValueError(f"module {moduleName} has no class {ascii(className)[1:-1]}")
    return made


def described(problem: BaseException) -> str:
    """Return an exception in one line of ASCII."""
    return ascii(f"{type(problem).__name__}: {problem}")[1:-1]
