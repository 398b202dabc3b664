"""The certificate: it loads, fits its key, is in force and will be, and is for the public name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from wsserver.config import Settings
from wsserver.doctor.findings import Finding, fail, ok, warn
from wsserver.tls import Certificate, CertificateError

EXPIRES_SOON: Final = timedelta(days=14)


def check_certificate(settings: Settings) -> Iterator[Finding]:
    """All about the certificate that the settings name; nothing where they name none."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        Certificate(settings.tls_cert, settings.tls_key)
    except CertificateError as error:
        yield fail("certificate", str(error), "the server can't start, or goes on with the old one")
        return
    yield _judge(settings.tls_cert, settings.public_url)


def _judge(chain: Path, public_url: str | None) -> Finding:
    certificates = x509.load_pem_x509_certificates(chain.read_bytes())
    now = datetime.now(UTC)
    renew = "renew it, and send the server SIGHUP"
    for certificate in certificates:
        if certificate.not_valid_before_utc > now:
            text = f"not in force before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            return fail("certificate", text, "is this machine's clock right?")
    expires = min(certificate.not_valid_after_utc for certificate in certificates)
    if expires <= now:
        return fail("certificate", f"it expired on {expires:%Y-%m-%d}: no client connects", renew)
    left = expires - now
    text = f"its key fits; in force for {left.days} more days"
    if left < EXPIRES_SOON:
        return warn("certificate", text, f"what renews it seems not to work: {renew}")
    first = certificates[0]
    host = urlsplit(public_url or "").hostname
    if host is not None and not _is_for(first, host):
        return warn("certificate", f"{text}, but not for {host}", "the public URL names that host")
    if len(certificates) == 1 and first.issuer != first.subject:
        return warn(
            "certificate",
            f"{text}; it stands alone in {chain.name}",
            "unless clients trust its issuer itself, put the intermediate certificates behind it "
            "(fullchain.pem rather than cert.pem)",
        )
    return ok("certificate", text)


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wildcard = "*." + host.partition(".")[2]
    return bool({host, wildcard} & {str(name.value).lower() for name in names})
