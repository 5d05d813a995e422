"""Where rsyslog is, if it can do RELP."""

import shutil
from pathlib import Path

MODULE = "rsyslog/imrelp.so"
LIBRARIES = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    *map(str, Path("/usr/lib").glob("*-linux-*")),
)


def program() -> str:
    # Not on everybody's path.
    return shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""


def missing() -> str | None:
    """Return what is not installed of rsyslog."""
    if not program():
        return "rsyslogd"
    if not any(Path(folder, MODULE).exists() for folder in LIBRARIES):
        return "rsyslog's imrelp"
    return None
