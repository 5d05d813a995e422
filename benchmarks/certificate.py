"""A key and a certificate for TLS on this machine, made once."""

import shutil
import subprocess
from pathlib import Path

from benchmarks.compiler import has_header
from benchmarks.failure import Failure

HEADER = "openssl/ssl.h"


def missing() -> str | None:
    """Return what TLS needs and is not installed."""
    if not has_header(HEADER):
        return f"<{HEADER}>"
    return None if shutil.which("openssl") else "openssl"


def certificate(folder: Path) -> Path:
    """Return a PEM file in `folder` that holds both."""
    path = folder / "server.pem"
    if not path.exists():
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch"
        command += " -subj /CN=localhost -days 2"
        files = ["-keyout", str(path), "-out", str(folder / "certificate.pem")]
        result = subprocess.run([*command.split(), *files], capture_output=True, text=True)
        if result.returncode:
            raise Failure(f"openssl made no certificate:\n{result.stderr}")
        with path.open("a") as file:
            file.write((folder / "certificate.pem").read_text())
    return path
