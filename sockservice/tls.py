"""TLS for a listener, from the files its endpoint names."""

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from sockservice.sockets import CannotListen

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@implementer(IOpenSSLServerConnectionCreator)
class Wrapping:
    """Makes of a factory one that serves the same over TLS.

    `options` are those of Twisted's `ssl:` endpoint: `privateKey` (default
    server.pem), `certKey` (default: the same file), `extraCertChain`,
    `dhParameters`, `sslmethod`; and `caCerts`, a PEM file: a client has to show a
    certificate signed by one of these, or is refused in the handshake.

    :raises CannotListen: A file is missing or is not what it should be.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        try:
            from OpenSSL import SSL
            from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
        except ImportError as missing:
            raise CannotListen(
                f"ssl: needs {missing.name}; install it with pip install 'sockservice[tls]'"
            ) from missing

        class Unbuffered(TLSMemoryBIOFactory):
            # A batch of replies is one write as it is; held back to be joined with others
            # it would be lost where the peer ends TLS right behind its last line.
            protocol = TLSMemoryBIOProtocol

        self._connection = SSL.Connection
        self._factory = Unbuffered
        self._options = options
        self._context = _context(options)

    def __call__(self, factory: Any) -> Any:
        return self._factory(self, False, factory)

    def reload(self) -> None:
        """Read the files again; connections from now on are served with what they say.

        :raises CannotListen: As at first; then all stays as it is.
        """
        self._context = _context(self._options)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Give the next connection's TLS; called by Twisted."""
        return self._connection(self._context.getContext(), None)


def _context(options: Mapping[str, str]) -> Any:
    from OpenSSL import SSL, crypto
    from twisted.internet import ssl

    keyFile = options.get("privateKey", "server.pem")
    certificates = _certificates(options.get("certKey", keyFile))
    more: dict[str, Any] = {}
    if "caCerts" in options:
        more["trustRoot"] = ssl.trustRootFromCertificates(
            [ssl.Certificate.loadPEM(pem) for pem in _certificates(options["caCerts"])]
        )
    if "extraCertChain" in options:
        certificates += _certificates(options["extraCertChain"])
    if "dhParameters" in options:
        from twisted.python.filepath import FilePath

        if b"BEGIN DH PARAMETERS" not in _read(options["dhParameters"]):
            raise CannotListen(f"ssl: {options['dhParameters']} holds no DH parameters in PEM")
        more["dhParameters"] = ssl.DiffieHellmanParameters.fromFile(
            FilePath(options["dhParameters"])
        )
    if "sslmethod" in options:
        name = options["sslmethod"]
        more["method"] = getattr(SSL, name, None)
        if more["method"] is None or not name.endswith("_METHOD"):
            raise CannotListen(f"ssl: there is no method {options['sslmethod']}")
    try:
        key = ssl.KeyPair.load(_read(keyFile), crypto.FILETYPE_PEM)
    except crypto.Error as problem:
        raise CannotListen(f"ssl: {keyFile} holds no private key in PEM") from problem
    chain = [ssl.Certificate.loadPEM(pem).original for pem in certificates]
    context = ssl.CertificateOptions(
        privateKey=key.original, certificate=chain[0], extraCertChain=chain[1:], **more
    )
    try:
        context.getContext().check_privatekey()
    except SSL.Error as problem:
        raise CannotListen(
            f"ssl: the private key in {keyFile} is not that of the certificate"
        ) from problem
    return context


def _certificates(path: str) -> list[bytes]:
    from OpenSSL import crypto

    found = _PEM.findall(_read(path))
    try:
        for pem in found:
            crypto.load_certificate(crypto.FILETYPE_PEM, pem)
    except crypto.Error:
        found = []
    if not found:
        raise CannotListen(f"ssl: {path} holds no certificate in PEM")
    return found


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise CannotListen(f"ssl: {path}: {problem.strerror}") from problem
