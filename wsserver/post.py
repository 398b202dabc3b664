"""The post office: turns what a session wants mailed into letters, and has them sent."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from wsserver.config import Settings
from wsserver.letters import (
    Letter,
    address_taken_letter,
    make_link,
    reset_letter,
    verification_letter,
)
from wsserver.mail import Mailer, parse_sender
from wsserver.metrics import Metrics
from wsserver.operations import SendLetter
from wsserver.smtp import parse_smtp_url

SENDER_NAME: Final = "wallet-sync"


class PostOffice:
    """Writes and sends the letters of mode email."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.smtp_url is not None, "checked with the settings"
        assert settings.public_url is not None, "checked with the settings"
        self._public_url = settings.public_url
        host = urlsplit(self._public_url).hostname
        sender = settings.mail_from or f"{SENDER_NAME}@{host}"
        relay = parse_smtp_url(settings.smtp_url.get_secret_value())
        self._mailer = Mailer(relay, parse_sender(sender), count=metrics.count_letter)

    @property
    def waiting(self) -> int:
        """Letters that are not delivered yet."""
        return self._mailer.waiting

    def send(self, operation: SendLetter) -> None:
        """Have the letter sent; returns at once, whatever becomes of it."""
        self._mailer.send(self._write(operation))

    async def close(self, timeout_s: float) -> None:
        """Try once more to deliver what waits."""
        await self._mailer.close(timeout_s=timeout_s)

    def _write(self, operation: SendLetter) -> Letter:
        email, token = operation.email, operation.token
        if operation.kind == "address_taken":
            return address_taken_letter(email, self._public_url)
        assert token is not None, "only the owner of a taken address gets a letter without one"
        if operation.kind == "verification":
            return verification_letter(email, make_link(self._public_url, "verify", token))
        return reset_letter(email, make_link(self._public_url, "reset", token))
