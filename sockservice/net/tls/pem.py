"""Certificates and keys in PEM files, for both ends of TLS."""

import re
from typing import Any

from sockservice.files import contents

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def certificates(path: str) -> list[bytes]:
    """Return the certificates in a file, each in PEM.

    :raises ValueError: It cannot be read, or contains none.
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


def key(path: str) -> Any:
    """Return the private key in a file, an OpenSSL.crypto.PKey.

    :raises ValueError: It cannot be read, contains none, or an encrypted one.
    """
    from OpenSSL import crypto

    asked = []

    def passphrase(*_: object) -> bytes:
        # Otherwise OpenSSL asks on the terminal.
        asked.append(True)
        return b""

    try:
        return crypto.load_privatekey(crypto.FILETYPE_PEM, read(path), passphrase)
    except crypto.Error as problem:
        if asked:
            raise ValueError(
                f"the private key in {path} is encrypted; "
                f"decrypt it: openssl pkey -in {path} -out FILE"
            ) from problem
        raise ValueError(f"{path} holds no private key in PEM") from problem


def read(path: str) -> bytes:
    """Return the contents of a file.

    :raises ValueError: It cannot be read.
    """
    if not path:
        raise ValueError("an option names no file")
    try:
        return contents(path)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem
