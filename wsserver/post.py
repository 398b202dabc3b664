"""The post office: turns what a session wants mailed into letters, and has them sent.

State: the letters that are held for a moment. All of it belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import typing
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
from wsserver.mail import QUEUE_LETTERS_MAX, Mailer, Outcome, parse_sender
from wsserver.metrics import Metrics
from wsserver.operations import SendLetter
from wsserver.smtp import parse_smtp_url

SENDER_NAME: Final = "wallet-sync"
PAUSE_MAX_S = 2.0
"""A letter is written after a pause drawn up to this: its work takes the event loop 2 ms, and if it
came right after the answer, a ping sent then would tell by its delay that somebody gets one."""
HELD_MAX: Final = 1000
"""Letters held at a time, at a few hundred bytes each; one more is not held."""


class PostOffice:
    """Writes and sends the letters of mode email."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.smtp_url is not None, "checked with the settings"
        assert settings.public_url is not None, "checked with the settings"
        self._public_url = settings.public_url
        host = urlsplit(self._public_url).hostname
        sender = settings.mail_from or f"{SENDER_NAME}@{host}"
        relay = parse_smtp_url(settings.smtp_url.get_secret_value())
        metrics.letters.update(dict.fromkeys(typing.get_args(Outcome), 0))
        self._mailer = Mailer(relay, parse_sender(sender), count=metrics.count_letter)
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, SendLetter] = {}
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Letters that are not delivered yet."""
        return len(self._held) + self._mailer.waiting

    @property
    def waiting_max(self) -> int:
        """How many there may be, about: more are dropped."""
        return HELD_MAX + QUEUE_LETTERS_MAX

    def send(self, operation: SendLetter) -> None:
        """Have the letter sent; returns at once, whatever becomes of it."""
        if operation.kind == "none":
            return
        if len(self._held) >= HELD_MAX:
            self._mailer.send(self._write(operation))
            return
        number = next(self._numbers)
        self._held[number] = operation
        pause_s = random.uniform(0, PAUSE_MAX_S)  # noqa: S311  # nothing secret comes from it
        self._loop.call_later(pause_s, self._let_go, number)

    async def close(self, timeout_s: float) -> None:
        """Try once more to deliver what waits."""
        for number in tuple(self._held):
            self._let_go(number)
        await self._mailer.close(timeout_s=timeout_s)

    def _let_go(self, number: int) -> None:
        operation = self._held.pop(number, None)
        if operation is not None:
            self._mailer.send(self._write(operation))

    def _write(self, operation: SendLetter) -> Letter:
        email, token = operation.email, operation.token
        if operation.kind == "address_taken":
            return address_taken_letter(email, self._public_url)
        assert token is not None, "only the owner of a taken address gets a letter without one"
        if operation.kind == "verification":
            return verification_letter(email, make_link(self._public_url, "verify", token))
        return reset_letter(email, make_link(self._public_url, "reset", token))
