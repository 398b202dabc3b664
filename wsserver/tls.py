"""TLS for the public port: a certificate that can be renewed without dropping a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate


class CertificateError(Exception):
    """The certificate or its key can't be used; the text says which and why."""


@dataclass(slots=True)
class Certificate:
    """A PEM chain and its key, and the context that new connections are accepted with."""

    chain: Path
    key: Path
    context: ssl.SSLContext = field(init=False)
    expires_at: datetime = field(init=False)
    """When the certificate in use ends."""
    _newest: ssl.SSLContext = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.context = self._newest = self._load()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Use what the files hold now for new connections; or CertificateError, and the old stays.

        Connections that are open go on: TLS looks at a certificate at its handshake only.
        """
        self._newest = self._load()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # Each handshake asks, whether it names a server or not. Loading into the old context would
        # keep its certificate beside the new one where their keys are of two kinds.
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # With a password at hand OpenSSL asks for none: nobody sits there to type it.
            context.load_cert_chain(self.chain, self.key, password="-")  # noqa: S106
        except FileNotFoundError:
            missing = self.key if self.chain.is_file() else self.chain
            raise CertificateError(f"{missing} does not exist") from None
        except OSError as error:
            raise CertificateError(f"{self.chain} with key {self.key}: {_explain(error)}") from None
        self.expires_at = load_pem_x509_certificate(self.chain.read_bytes()).not_valid_after_utc
        return context


def _explain(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return "one of them is not in PEM format, or the key has a passphrase"
