"""The way out for mail: to an SMTP relay, or to standard error for development.

A relay that can't take a mail now raises TemporaryFailure, one that never will PermanentFailure.
Neither names the address, the password or anything of the mail, nor does the text of a URL's error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final, Literal, Protocol, TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib

SUBMISSION_PORT: Final = 587
"""RFC 6409, section 3.1."""
SUBMISSIONS_PORT: Final = 465
"""Submission under TLS from the first byte: RFC 8314, section 7.3."""
QUIT_TIMEOUT_S: Final = 2.0
"""How long a relay that has taken a mail may take to say goodbye."""


class DeliveryFailure(Exception):
    """The mail was not taken; the text says why, and holds nothing that must not be logged."""


class TemporaryFailure(DeliveryFailure):
    """Another try may succeed."""


class PermanentFailure(DeliveryFailure):
    """The relay has refused this mail for good."""


class Relay(Protocol):
    """Takes mails. ``str`` of it is fit for a log."""

    async def deliver(self, message: EmailMessage, recipient: str, *, timeout_s: float) -> None:
        """Return once the mail is taken; raises DeliveryFailure, within ``timeout_s``."""
        ...


Security = Literal["tls", "starttls", "starttls_if_offered", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpRelay:
    """An SMTP server that passes mails on; one connection for each.

    Its certificate is verified whenever TLS is used, against the system's authorities or those of
    the file that the environment's SSL_CERT_FILE names.
    """

    host: str
    port: int
    security: Security
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        scheme = "smtps" if self.security == "tls" else "smtp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    async def deliver(self, message: EmailMessage, recipient: str, *, timeout_s: float) -> None:
        """Have the relay take the mail, from the address in its From."""
        sender = message["From"].addresses[0]
        # A machine's own name is often none that a relay would believe (a container's id).
        async with self._connected(sender.domain, timeout_s) as smtp:
            await smtp.send_message(message, sender=sender.addr_spec, recipients=[recipient])

    async def try_out(self, domain: str, *, timeout_s: float) -> bool:
        """Connect and log in as for a mail from that domain, and give whether TLS was used.

        Raises DeliveryFailure.
        """
        async with self._connected(domain, timeout_s) as smtp:
            return smtp.get_transport_info("ssl_object") is not None

    @contextlib.asynccontextmanager
    async def _connected(self, domain: str, timeout_s: float) -> AsyncIterator[aiosmtplib.SMTP]:
        smtp = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            local_hostname=domain,
            timeout=timeout_s,
            use_tls=self.security == "tls",
            start_tls={"starttls": True, "starttls_if_offered": None}.get(self.security, False),
        )
        try:
            async with asyncio.timeout(timeout_s):
                await smtp.connect()
                yield smtp
        except (OSError, aiosmtplib.SMTPException) as error:
            raise _describe_failure(error) from None
        else:
            # It is taken, whatever comes now: another try would deliver it twice.
            with contextlib.suppress(OSError, aiosmtplib.SMTPException):
                await smtp.quit(timeout=QUIT_TIMEOUT_S)
        finally:
            smtp.close()


@dataclass(frozen=True, slots=True)
class ConsoleRelay:
    """Prints each mail, for development; by default to standard error."""

    output: TextIO | None = None

    def __str__(self) -> str:
        return "console:"

    async def deliver(self, message: EmailMessage, recipient: str, *, timeout_s: float) -> None:
        """Print its head and its plain text."""
        text = message.get_body(("plain",))
        assert text is not None
        head = "".join(f"{name}: {message[name]}\n" for name in ("From", "To", "Subject"))
        rule = "-" * 72
        output = self.output or sys.stderr
        output.write(f"{rule}\n{head}\n{text.get_content()}{rule}\n")
        output.flush()


def parse_smtp_url(url: str) -> SmtpRelay | ConsoleRelay:
    """The relay that the URL names.

    ``smtp://[user:password@]host[:port][?starttls=required|never]`` (STARTTLS is used where the
    relay offers it, unless told otherwise), ``smtps://...`` for TLS from the first byte, or
    ``console:``. Raises ValueError with a sentence that holds nothing of the URL's credentials.
    """
    if url == "console:":
        return ConsoleRelay()
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("the URL must not contain spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The library's text would show what it took for the host, maybe a piece of the password.
        raise ValueError(f"the host or the port can't be read; {_ENCODE_HINT}") from None
    if parts.scheme not in ("smtp", "smtps"):
        raise ValueError("the URL must begin with smtp:// or smtps://, or be console:")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"nothing but ?starttls= may follow the host and port; {_ENCODE_HINT}")
    if not parts.hostname:
        raise ValueError("the URL names no host: write smtp://host or smtp://host:port")
    if port == 0:
        raise ValueError("the port must be from 1 to 65535")
    user, password = (
        None if part is None else unquote(part) for part in _credentials(parts.netloc)
    )
    if user is not None and not (user and password):
        raise ValueError("credentials are a user and a password: smtp://user:password@host")
    security = _read_security(parts.scheme, parts.query)
    if user is not None and not _is_loopback(parts.hostname):
        if security == "none":
            raise ValueError(
                "credentials would cross the network unencrypted: leave out starttls=never"
            )
        if security == "starttls_if_offered":
            # Whoever can strip the offer from the relay's answer would be handed the password.
            security = "starttls"
    return SmtpRelay(
        host=parts.hostname,
        port=port or (SUBMISSIONS_PORT if security == "tls" else SUBMISSION_PORT),
        security=security,
        user=user,
        password=password,
    )


_ENCODE_HINT: Final = "in a user or a password, write / ? # and @ as %2F %3F %23 and %40"


def _credentials(netloc: str) -> tuple[str | None, str | None]:
    userinfo, at, _ = netloc.rpartition("@")
    if not at:
        return None, None
    user, _, password = userinfo.partition(":")
    return user, password


def _read_security(scheme: str, query: str) -> Security:
    options = parse_qsl(query, keep_blank_values=True)
    if scheme == "smtps":
        if options:
            raise ValueError("smtps:// takes no options: it is encrypted from the first byte")
        return "tls"
    match options:
        case []:
            return "starttls_if_offered"
        case [("starttls", "required")]:
            return "starttls"
        case [("starttls", "never")]:
            return "none"
        case _:
            raise ValueError(
                "the only options are ?starttls=required and ?starttls=never; " + _ENCODE_HINT
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _describe_failure(error: OSError | aiosmtplib.SMTPException) -> DeliveryFailure:
    """The failure that may be logged: a relay's own words are left out, they often quote."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused(recipients=[refused, *_]):
            return _describe_failure(refused)
        case aiosmtplib.SMTPResponseException(code=code):
            enhanced = _ENHANCED_CODE.match(error.message)
            answer = f"{code} {enhanced[0]}" if enhanced else str(code)
            kind = PermanentFailure if 500 <= code <= 599 else TemporaryFailure
            return kind(f"the relay answered {answer} to {_STEPS.get(type(error), 'a command')}")
        case aiosmtplib.SMTPNotSupported():
            return PermanentFailure(
                "the address is not ASCII, and the relay does not take such (no SMTPUTF8)"
            )
        case TimeoutError():
            return TemporaryFailure("the relay did not answer in time")
        case aiosmtplib.SMTPConnectError(__cause__=OSError() as cause):
            return _describe_failure(cause)
        case ssl.SSLCertVerificationError(verify_message=reason):
            return TemporaryFailure(
                f"the relay's certificate was not accepted ({reason}); for a private authority set "
                "SSL_CERT_FILE, for a relay on this machine ?starttls=never"
            )
        case ssl.SSLError(reason=reason):
            return TemporaryFailure(f"TLS with the relay failed ({reason or 'no reason given'})")
        case aiosmtplib.SMTPServerDisconnected():
            return TemporaryFailure("the relay closed the connection")
        case OSError():
            return TemporaryFailure(
                f"the relay can't be reached ({error.strerror or type(error).__name__})"
            )
        case _:
            # What the library itself misses: an authentication method, or STARTTLS.
            return TemporaryFailure(f"the relay does not offer what is needed ({error.message})")


_ENHANCED_CODE: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
"""RFC 3463, section 2."""
_STEPS: Final[dict[type, str]] = {
    aiosmtplib.SMTPConnectResponseError: "the connection",
    aiosmtplib.SMTPHeloError: "the greeting",
    aiosmtplib.SMTPAuthenticationError: "the credentials",
    aiosmtplib.SMTPSenderRefused: "the sender",
    aiosmtplib.SMTPRecipientRefused: "the recipient",
    aiosmtplib.SMTPDataError: "the mail",
}
