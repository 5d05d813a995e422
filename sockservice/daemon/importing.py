"""Import modules that the user names: protocols and storage engines."""

import importlib
import os
import sys
from types import ModuleType


def module(name: str) -> ModuleType:
    """Import a module as twistd would: from the current folder too, and there first.

    :raises Exception: What the module raises, SystemExit among it; ModuleNotFoundError.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)
