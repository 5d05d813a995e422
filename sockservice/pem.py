"""Certificates and keys in PEM files, for both ends of TLS."""

import re

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def certificates(path: str) -> list[bytes]:
    """Give the certificates in a file, each in PEM.

    :raises ValueError: It can't be read, or holds none.
    """
    from OpenSSL import crypto

    found = _CERTIFICATE.findall(read(path))
    try:
        for pem in found:
            crypto.load_certificate(crypto.FILETYPE_PEM, pem)
    except crypto.Error:
        found = []
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM")
    return found


def read(path: str) -> bytes:
    """Give what a file holds.

    :raises ValueError: It can't be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise ValueError(f"{path}: {problem.strerror}") from problem
