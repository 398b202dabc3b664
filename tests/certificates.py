"""Certificates for tests, of an authority of their own."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Files:
    """A server's certificate and key."""

    chain: Path
    key: Path


@dataclass
class Authority:
    """Signs certificates for 127.0.0.1 and localhost."""

    folder: Path
    name: str = "test authority"
    path: Path = field(init=False)
    """Its own certificate: what a client has to trust."""

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self.name, self._key, x509.BasicConstraints(True, None))
        self.path = self.folder / f"{self.name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, kind: Literal["ec", "rsa"] = "ec", *, days: float = 1) -> Files:
        """A new certificate, in files of that name: what was in them is overwritten."""
        key: Key
        if kind == "ec":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = self._sign(name, key, x509.BasicConstraints(False, None), days)
        files = Files(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        files.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _sign(
        self, name: str, key: Key, basic: x509.BasicConstraints, days: float = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        addresses = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        )
        return (
            x509.CertificateBuilder()
            .subject_name(_call(name))
            .issuer_name(_call(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(basic, critical=True)
            .add_extension(own, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(addresses, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def find_serial_number(chain: Path) -> int:
    """The serial number of the certificate in a file."""
    return x509.load_pem_x509_certificate(chain.read_bytes()).serial_number


def _call(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
