"""TLS for listeners, from the files that an endpoint names."""

from calendar import timegm
from collections.abc import Callable, Mapping
from functools import partial
from time import strptime
from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from zope.interface import implementer

from sockservice.errors import CannotListen
from sockservice.net.tls import pem


@implementer(IOpenSSLServerConnectionCreator)
class Wrapping:
    """Wraps a factory so that it serves the same over TLS.

    `options` are those of Twisted's `ssl:` endpoint: `privateKey` (default
    server.pem), `certKey` (default: the same file), `extraCertChain`,
    `dhParameters`, `sslmethod`; and `caCerts`, a PEM file: a client has to present a
    certificate signed by one of these, or is refused in the handshake.

    :raises CannotListen: A file is missing or invalid.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        try:
            from sockservice.net.tls.halfclose import HalfCloseableConnection, HalfCloseableFactory
        except ImportError as missing:
            raise CannotListen(
                f"ssl: needs {missing.name}; install it with pip install 'sockservice[tls]'"
            ) from missing

        self._connection = HalfCloseableConnection
        self._factory = HalfCloseableFactory
        self._options = options
        self._context: Any
        self.reload()

    def __call__(self, factory: Any) -> Any:
        return self._factory(self, False, factory)

    @property
    def expires(self) -> float:
        """When the certificate in use expires, in seconds since 1970."""
        said = self._context.certificate.get_notAfter().decode()
        return float(timegm(strptime(said, "%Y%m%d%H%M%SZ")))

    def around(self, protocol: Any) -> Any:
        """Return what speaks TLS on a connection that is there already, for `protocol`."""
        return self(_Only(protocol)).buildProtocol(None)

    def reload(self) -> None:
        """Read the files again; new connections use the new contents.

        :raises CannotListen: A file is missing or invalid; the old contents stay in use.
        """
        self.reread()()

    def reread(self) -> Callable[[], None]:
        """Read the files again, in any thread; give what lets new connections use them.

        :raises CannotListen: A file is missing or invalid.
        """
        try:
            context = _context(self._options)
        except ValueError as problem:
            raise CannotListen(f"ssl: {problem}") from problem
        return partial(setattr, self, "_context", context)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Return OpenSSL's connection for a new connection; called by Twisted."""
        return self._connection(self._context.getContext(), None)


class _Only(Factory):
    """A factory of one protocol, which exists."""

    noisy = False

    def __init__(self, made: Any) -> None:
        self._made = made

    def buildProtocol(self, addr: Any) -> Any:
        return self._made


def _context(options: Mapping[str, str]) -> Any:
    from OpenSSL import SSL
    from twisted.internet import ssl

    keyFile = options.get("privateKey", "server.pem")
    certificates = pem.certificates(options.get("certKey", keyFile))
    more: dict[str, Any] = {}
    if "caCerts" in options:
        more["trustRoot"] = ssl.trustRootFromCertificates(
            [ssl.Certificate.loadPEM(each) for each in pem.certificates(options["caCerts"])]
        )
    if "extraCertChain" in options:
        certificates += pem.certificates(options["extraCertChain"])
    if "dhParameters" in options:
        from twisted.python.filepath import FilePath

        if b"BEGIN DH PARAMETERS" not in pem.read(options["dhParameters"]):
            raise ValueError(f"{options['dhParameters']} holds no DH parameters in PEM")
        more["dhParameters"] = ssl.DiffieHellmanParameters.fromFile(
            FilePath(options["dhParameters"])
        )
    if "sslmethod" in options:
        name = options["sslmethod"]
        more["method"] = getattr(SSL, name, None)
        if more["method"] is None or not name.endswith("_METHOD"):
            raise ValueError(f"there is no method {options['sslmethod']}")
    key = pem.key(keyFile)
    chain = [ssl.Certificate.loadPEM(each).original for each in certificates]
    context = ssl.CertificateOptions(
        privateKey=key, certificate=chain[0], extraCertChain=chain[1:], **more
    )
    try:
        context.getContext().check_privatekey()
    except SSL.Error as problem:
        raise ValueError(
            f"the private key in {keyFile} is not that of the certificate"
        ) from problem
    return context
