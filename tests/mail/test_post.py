"""The post office: which letters are written, and when."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.mail.relays import Inbox, serve_smtp
from wsserver import post
from wsserver.config import Settings
from wsserver.mail import Mailer
from wsserver.metrics import Metrics
from wsserver.operations import SendLetter
from wsserver.post import PostOffice

TOKEN = "ab" * 32
TIMEOUT_S = 20.0


def open_office(port: int) -> PostOffice:
    chosen: dict[str, Any] = {
        "verification": "email",
        "smtp_url": f"smtp://127.0.0.1:{port}?starttls=never",
        "public_url": "https://sync.example.com",
    }
    settings = Settings(**chosen)
    return PostOffice(settings, Metrics())


@pytest.fixture(autouse=True)
def no_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSSERVER_CONFIG", raising=False)


async def test_each_kind_of_letter_is_written_and_for_nobody_none_is() -> None:
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        office = open_office(port)
        for kind, token in (
            ("verification", TOKEN),
            ("address_taken", None),
            ("reset", TOKEN),
            ("none", None),
            ("none", TOKEN),
        ):
            office.send(SendLetter(kind, f"{kind}@example.com", token))
        waiting = office.waiting
        await office.close(TIMEOUT_S)

    subjects = {str(mail["To"]): str(mail["Subject"]) for mail in inbox.messages}
    assert waiting == 3
    assert subjects == {
        "verification@example.com": "Confirm your email address for sync.example.com",
        "address_taken@example.com": "You already have an account at sync.example.com",
        "reset@example.com": "Reset your account at sync.example.com",
    }


async def test_a_letter_is_written_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done for it right after the answer would show in whatever is asked next."""
    written: list[SendLetter] = []
    monkeypatch.setattr(random, "uniform", lambda least, most: most / 20)
    monkeypatch.setattr(PostOffice, "_write", lambda self, operation: written.append(operation))
    monkeypatch.setattr(Mailer, "send", lambda self, letter: None)
    office = open_office(1)

    office.send(SendLetter("reset", "joe@example.com", TOKEN))
    for _ in range(10):
        await asyncio.sleep(0)
    before = list(written)
    async with asyncio.timeout(TIMEOUT_S):
        while office.waiting:
            await asyncio.sleep(0.01)

    assert (len(before), len(written)) == (0, 1)


async def test_past_its_bound_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    monkeypatch.setattr(post, "HELD_MAX", 1)
    monkeypatch.setattr(post, "PAUSE_MAX_S", 3600.0)
    async with serve_smtp(inbox) as port:
        office = open_office(port)
        office.send(SendLetter("reset", "held@example.com", TOKEN))
        office.send(SendLetter("reset", "sent@example.com", TOKEN))
        async with asyncio.timeout(TIMEOUT_S):
            while not inbox.envelopes:
                await asyncio.sleep(0.01)
        before = [envelope.rcpt_tos for envelope in inbox.envelopes]
        await office.close(TIMEOUT_S)

    assert before == [["sent@example.com"]]
    assert len(inbox.envelopes) == 2
