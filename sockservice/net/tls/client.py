"""TLS for clients: verification, client certificates, errors in one line."""

import ipaddress
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.net.tls import pem

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
_NO_TLS = ("wrong version number", "packet length too long", "record layer failure", "http request")


class HandshakeError(ConnectError):
    """The TLS handshake failed; the text says why."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def refusal(problem: BaseException) -> str:
    """Return an error of OpenSSL's in one line, or "" for any other error."""
    if isinstance(problem, HandshakeError):
        return str(problem)
    if "OpenSSL" not in sys.modules:
        return ""
    from OpenSSL import SSL

    if not isinstance(problem, SSL.Error):
        return ""
    said = problem.args[0] if problem.args else ()
    reason = next((each[2] for each in said), "")
    if any(each in reason for each in _NO_TLS):
        return "the server does not speak TLS"
    _, alert, why = reason.partition("alert ")
    if alert:
        what = "our certificate" if "certificate" in why or why == "unknown ca" else "TLS"
        return f"the server refused {what}: {why}"
    return f"TLS failed: {reason or 'cut off'}"


@implementer(IStreamClientEndpoint)
class Secured:
    """The endpoint of a TLS server on `host`; connects once the handshake is complete.

    `verify`, `cafile`, `cert` and `key` are those of
    :func:`~sockservice.client.targets.connect`. Fails with :class:`HandshakeError`.

    :raises ValueError: A file is missing or invalid.
    """

    def __init__(
        self,
        endpoint: Any,
        host: str,
        *,
        verify: bool,
        cafile: str | None,
        cert: str | None,
        key: str | None,
    ) -> None:
        self._endpoint = endpoint
        self._host = host.partition("%")[0]
        self._verify = verify
        self._options = _options(verify, cafile, cert, key)

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
            verify_hostname(connection, host.encode("idna").decode())
    except (CertificateError, VerificationError):
        return False
    return True


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
                connection.set_tlsext_host_name(host.encode("idna"))
            mode = SSL.VERIFY_PEER if verify else SSL.VERIFY_NONE
            connection.set_verify(mode, tlsProtocol.wrappedProtocol.verified)
            return connection

    return Creator()


def _options(verify: bool, cafile: str | None, cert: str | None, key: str | None) -> Any:
    try:
        from OpenSSL import SSL
        from twisted.internet import ssl
    except ImportError as missing:
        raise ValueError(
            f"tls: needs {missing.name}; install it with pip install 'sockservice[tls]'"
        ) from missing

    more: dict[str, Any] = {}
    if cafile is not None:
        trusted = [ssl.Certificate.loadPEM(each) for each in pem.certificates(cafile)]
        more["trustRoot"] = ssl.trustRootFromCertificates(trusted)
    elif verify:
        more["trustRoot"] = ssl.platformTrust()
    if cert is None and key is not None:
        raise ValueError("a key without its certificate")
    if cert is not None:
        chain = [ssl.Certificate.loadPEM(each).original for each in pem.certificates(cert)]
        private = pem.key(key or cert)
        more |= {"privateKey": private, "certificate": chain[0], "extraCertChain": chain[1:]}
    options = ssl.CertificateOptions(**more)
    try:
        if cert is not None:
            options.getContext().check_privatekey()
    except SSL.Error as problem:
        raise ValueError(f"the private key in {key or cert} is not that of the certificate") from (
            problem
        )
    return options
