"""TLS that begins in the middle of a connection, over real sockets."""

import socket
import ssl
from contextlib import closing

import pytest
from twisted.internet.threads import deferToThread

from sockservice import Answer, LineFactory, LineServer, Wrapping
from tests.certificates import Identity
from tests.conftest import PATIENCE, Reactor, until

# Twisted's own use of pyOpenSSL.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


class Upgrading(LineServer):
    answerLimit = 1
    tls: Wrapping

    def answer(self, line: bytes) -> Answer:
        if line == b"STARTTLS":
            self.startTLS(self.tls)
            return b"go on"
        if line == b"later":
            return self.later()
        return line.upper()

    async def later(self) -> bytes:
        self.startTLS(self.tls)
        return b"go on"


async def said(
    real: Reactor, server: Identity, request: bytes, injects: bool = False
) -> tuple[bytes, bytes, LineFactory]:
    """Give what is answered in plain text, then in TLS."""
    wrapping = Wrapping({"privateKey": str(server.privateKey), "certKey": str(server.certKey)})
    factory = LineFactory(real, type("Secured", (Upgrading,), {"tls": wrapping}))
    port = real.listenTCP(0, factory, interface="127.0.0.1")

    def client() -> tuple[bytes, bytes]:
        with closing(socket.create_connection(("127.0.0.1", port.getHost().port))) as plain:
            plain.settimeout(PATIENCE)
            plain.sendall(request)
            first = b""
            while injects or b"\n" not in first:
                if not (data := plain.recv(100)):
                    return first, b""
                first += data
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain) as secured:
                secured.sendall(b"secret\n")
                return first, secured.recv(100)

    plain, secured = await deferToThread(client)
    await until(lambda: not factory._connections)
    await port.stopListening()
    return plain, secured, factory


@pytest.mark.parametrize("request_", [b"STARTTLS\n", b"later\n"])
async def test_tls_begins_behind_the_reply(
    real: Reactor, server: Identity, request_: bytes
) -> None:
    plain, secured, factory = await said(real, server, request_)
    assert (plain, secured) == (b"go on\n", b"SECRET\n")
    assert factory.counters.lines == 2


HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.mark.parametrize(
    "request_",
    [b"STARTTLS\ninjected\n", b"later\ninj", b"STARTTLS\nin", b"STARTTLS\n" + HELLO],
)
async def test_what_is_sent_behind_the_request_in_plain_text_ends_it(
    real: Reactor, server: Identity, request_: bytes
) -> None:
    """It would be taken for what TLS protects: CVE-2011-0411, aio-libs/aiosmtpd 380.

    Nor does a ClientHello that comes too early hang for ever (python/cpython 142352).
    """
    plain, secured, factory = await said(real, server, request_, injects=True)
    assert (plain, secured) == (b"go on\nerror plain text behind the request for TLS\n", b"")
    assert factory.counters.acknowledged == 1
