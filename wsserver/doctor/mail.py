"""The relay that mails go to: it greets, speaks TLS where it should, and takes the credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

from wsserver.config import Settings
from wsserver.doctor.exposure import reaches_loopback_only
from wsserver.doctor.findings import STEP_TIMEOUT_S, Finding, fail, ok, warn
from wsserver.mail import parse_sender
from wsserver.smtp import ConsoleRelay, DeliveryFailure, parse_smtp_url


def check_relay(settings: Settings) -> Iterator[Finding]:
    """All about the relay; nothing where no mail is sent."""
    if settings.verification != "email" or settings.smtp_url is None:
        return
    relay = parse_smtp_url(settings.smtp_url.get_secret_value())
    if isinstance(relay, ConsoleRelay):
        advice = "set WSSERVER_SMTP_URL to a relay, or nobody gets a mail"
        yield warn("mail", "mails are printed to the log, links and all", advice)
        return
    domain = _find_domain(settings)
    try:
        encrypted = asyncio.run(relay.try_out(domain, timeout_s=STEP_TIMEOUT_S))
    except DeliveryFailure as error:
        yield fail("mail", f"{relay}: {error}", "without it nobody can register or reset")
        return
    text = f"{relay} greets {domain}{' over TLS' if encrypted else ''}"
    if relay.user is not None:
        text += ", and takes the credentials"
    if encrypted or reaches_loopback_only(relay.host):
        yield ok("mail", text)
    else:
        advice = "whoever is on the way reads links: have the relay offer STARTTLS, or use smtps://"
        yield warn("mail", f"{text}, without TLS", advice)


def _find_domain(settings: Settings) -> str:
    """What the server calls itself to the relay: the domain that mails come from."""
    if settings.mail_from is not None:
        return parse_sender(settings.mail_from).domain
    return urlsplit(settings.public_url or "").hostname or "localhost"
