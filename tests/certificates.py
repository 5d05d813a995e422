"""Keys and certificates for tests, in PEM files."""

import datetime
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

#: What a server's certificate is for where nothing else is said.
LOCAL = ("localhost", "127.0.0.1")


class Identity:
    """A key and a certificate, signed by an authority or by itself.

    `hosts` are the names and addresses it is for, if an authority has signed it; it
    expires in `days` days.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        issuer: "Identity | None" = None,
        hosts: tuple[str, ...] = LOCAL,
        days: int = 1,
    ) -> None:
        if issuer is None:
            self._authority = trustme.CA(
                organization_name="sockservice", organization_unit_name=name
            )
            certificate, self._key = self._authority.cert_pem, self._authority.private_key_pem
        else:
            now = datetime.datetime.now(datetime.UTC)
            issued = issuer._authority.issue_cert(
                # A name that is no host's, for those who have no host.
                *(hosts or (f"{name}@example.org",)),
                common_name=name,
                organization_name="sockservice",
                organization_unit_name="tests",
                not_before=now - datetime.timedelta(days=9),
                not_after=now + datetime.timedelta(days=days),
            )
            [certificate], self._key = issued.cert_chain_pems, issued.private_key_pem
        self.certificate = x509.load_pem_x509_certificate(certificate.bytes())
        self.certKey = folder / f"{name}.crt"
        certificate.write_to_path(self.certKey)
        self.privateKey = folder / f"{name}.key"
        self._key.write_to_path(self.privateKey)

    def lock(self) -> Path:
        """Give the file of the key, encrypted."""
        locked = self.privateKey.with_name("locked.key")
        key = serialization.load_pem_private_key(self._key.bytes(), None)
        locked.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"open"),
            )
        )
        return locked

    @property
    def said(self) -> str:
        """What a listener's description says of it."""
        return f"privateKey={self.privateKey}:certKey={self.certKey}"
