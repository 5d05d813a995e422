"""The service as twistd's plugin names it."""

from sockservice.daemon.checking import Checked as Options
from sockservice.daemon.service import makeService

__all__ = ["Options", "makeService"]
