"""TLS for clients: verification, client certificates, errors in one line."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.tls import pem
from sockservice.net.tls.failing import failing

# OpenSSL's verification errors (x509_vfy.h), in words that point to the cause.
_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by nobody but itself",
    19: "comes from an authority that is not trusted",
    20: "comes from an authority that is not trusted",
    21: "comes from an authority that is not trusted",
    23: "has been revoked",
}


class HandshakeError(ConnectError):
    """The TLS handshake failed; the text says why."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def refusal(problem: BaseException) -> str:
    """Return an error of OpenSSL's in one line, or "" for any other error."""
    if isinstance(problem, HandshakeError):
        return str(problem)
    return failing(problem, "the server")


#: The versions of TLS that can be asked for as the lowest.
VERSIONS = ("1.2", "1.3")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms a client speaks TLS; :func:`~sockservice.connect` says what they are."""

    verify: bool = True
    cafile: str | None = None
    cert: str | None = None
    key: str | None = None
    serverName: str | None = None
    tlsMin: str | None = None
    alpn: tuple[str, ...] = ()


def lasting(problem: BaseException) -> bool:
    """Return whether an error comes of certificates, or of no TLS: to try again is of no use."""
    return refusal(problem).startswith(
        ("the server's certificate ", "the server refused our ", "the server does not speak ")
    )


@implementer(IStreamClientEndpoint)
class Secured:
    """The endpoint of a TLS server on `host`; connects once the handshake is complete.

    Fails with :class:`HandshakeError`.

    :raises ValueError: A file is missing or invalid, or a version or name is none.
    """

    def __init__(self, endpoint: Any, host: str, terms: Terms) -> None:
        self._endpoint = endpoint
        self._host = (terms.serverName or host).partition("%")[0]
        try:
            _encoded(self._host)
        except UnicodeError as error:
            raise ValueError(f"invalid name of a server: {self._host}") from error
        self._verify = terms.verify
        self._options = _options(terms)

    def connect(self, factory: Any) -> Deferred[Any]:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        creator = _creator(self._options, self._host, self._verify)
        plain = Factory.forProtocol(lambda: _Handshake(factory, self._host, self._verify))
        connecting: Deferred[Any] = self._endpoint.connect(
            TLSMemoryBIOFactory(creator, True, plain)
        )
        return connecting.addCallback(lambda secured: secured.wrappedProtocol.made)


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Takes the place of the protocol until the server has been verified."""

    transport: Any

    def __init__(self, factory: Any, host: str, verify: bool) -> None:
        self._factory = factory
        self._host = host
        self._verify = verify
        self.made: Deferred[Any] = Deferred(lambda _: self.transport.abortConnection())
        #: OpenSSL's number of what is wrong with the server's certificate.
        self.fault: int | None = None

    def verified(self, _: Any, __: Any, fault: int, ___: int, good: int) -> bool:
        if not good:
            self.fault = fault
        return bool(good)

    def handshakeCompleted(self) -> None:
        if self._verify and not _isFor(self.transport.getHandle(), self._host):
            self.transport.abortConnection()
            self._fail(f"the server's certificate is not for {self._host}")
            return
        secured = self.transport
        protocol = secured.wrappedProtocol = self._factory.buildProtocol(secured.getPeer())
        protocol.makeConnection(secured)
        self.made.callback(protocol)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        if self.fault is not None:
            said = _FAULTS.get(self.fault, f"is not trusted (OpenSSL's error {self.fault})")
            self._fail(f"the server's certificate {said}")
        else:
            self._fail(refusal(reason.value) or "the server ended the connection in the handshake")

    def _fail(self, why: str) -> None:
        if not self.made.called:
            self.made.errback(HandshakeError(string=why))


def _isFor(connection: Any, host: str) -> bool:
    """Return whether the server's certificate is valid for `host`."""
    from service_identity import CertificateError, VerificationError
    from service_identity.pyopenssl import verify_hostname, verify_ip_address

    try:
        if _isAddress(host):
            verify_ip_address(connection, host)
        else:
            verify_hostname(connection, _encoded(host).decode())
    except (CertificateError, VerificationError):
        return False
    return True


def _encoded(host: str) -> bytes:
    """Return a name as it is sent, without the dot of the root (RFC 6066, 3)."""
    return host.rstrip(".").encode("idna")


def _isAddress(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _creator(options: Any, host: str, verify: bool) -> Any:
    """Return the creator of OpenSSL connections to `host`."""
    from OpenSSL import SSL
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

    from sockservice.net.tls.halfclose import Connection

    @implementer(IOpenSSLClientConnectionCreator)
    class Creator:
        def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
            connection = Connection(options.getContext(), None)
            if not _isAddress(host):
                connection.set_tlsext_host_name(_encoded(host))
            mode = SSL.VERIFY_PEER if verify else SSL.VERIFY_NONE
            connection.set_verify(mode, tlsProtocol.wrappedProtocol.verified)
            return connection

    return Creator()


def _options(terms: Terms) -> Any:
    try:
        from OpenSSL import SSL
        from twisted.internet import ssl
    except ImportError as missing:
        raise ValueError(
            f"tls: needs {missing.name}; install it with pip install 'sockservice[tls]'"
        ) from missing

    more: dict[str, Any] = {}
    if terms.tlsMin is not None:
        if terms.tlsMin not in VERSIONS:
            raise ValueError(f"the lowest version of TLS is one of {', '.join(VERSIONS)}")
        more["raiseMinimumTo"] = {
            "1.2": ssl.TLSVersion.TLSv1_2,
            "1.3": ssl.TLSVersion.TLSv1_3,
        }[terms.tlsMin]
    if terms.cafile is not None:
        trusted = [ssl.Certificate.loadPEM(each) for each in pem.certificates(terms.cafile)]
        more["trustRoot"] = ssl.trustRootFromCertificates(trusted)
    elif terms.verify:
        more["trustRoot"] = ssl.platformTrust()
    cert, key = terms.cert, terms.key or terms.cert
    if cert is None and key is not None:
        raise ValueError("a key without its certificate")
    if cert is not None and key is not None:
        chain = [ssl.Certificate.loadPEM(each).original for each in pem.certificates(cert)]
        more |= {"privateKey": pem.key(key), "certificate": chain[0], "extraCertChain": chain[1:]}
    options = ssl.CertificateOptions(**more)
    if terms.alpn:
        # Not as an argument: Twisted's later versions leave it to connections of their own.
        options.getContext().set_alpn_protos([_protocolName(each) for each in terms.alpn])
    try:
        if cert is not None:
            options.getContext().check_privatekey()
    except SSL.Error as problem:
        raise ValueError(f"the private key in {key} is not that of the certificate") from problem
    return options


def _protocolName(name: str) -> bytes:
    """Return a name for ALPN as it is sent (RFC 7301, 3.1)."""
    encoded = name.encode(errors="surrogateescape")
    if not 0 < len(encoded) < 256:
        raise ValueError("the name of a protocol for ALPN has 1 to 255 bytes")
    return encoded
