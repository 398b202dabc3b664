"""Mail: letters wait in a bounded queue and are tried until the relay takes them, or too long.

What waits is lost with the process: a letter's token can be asked for again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final, Literal

from wsserver import logbook
from wsserver.failures import report_failure
from wsserver.letters import Letter
from wsserver.smtp import PermanentFailure, Relay, TemporaryFailure

QUEUE_LETTERS_MAX: Final = 1000
"""Letters that may wait, at a few kilobytes each."""
DELIVERIES_AT_ONCE_MAX: Final = 4
"""Relays commonly limit the connections of one client; four let others pass one that stalls."""
DELIVERY_TIMEOUT_S: Final = 30.0
GIVE_UP_AFTER_S: Final = 3600.0
"""As long as a reset's token lives. Greylisting commonly asks for minutes."""
BACKOFF_FIRST_S: Final = 5.0
BACKOFF_MAX_S: Final = 300.0
LINE_CHARS_MAX: Final = 990
"""RFC 5322, section 2.1.1, allows 998. Longer lines are encoded: a link could not be read raw."""

Outcome = Literal["delivered", "deferred", "refused", "expired", "overflowed", "unsent"]
"""``deferred``: a try failed, and another follows; the others are final. ``refused``: the relay
will never take it, or the address can't be mailed. ``expired``: given up. ``overflowed``: the queue
was full, or closed. ``unsent``: the server stopped first."""


class Mailer:
    """Sends letters, in the background. All of it belongs to the event loop."""

    def __init__(
        self,
        relay: Relay,
        sender: Address,
        *,
        count: Callable[[Outcome], None],
        queue_letters_max: int = QUEUE_LETTERS_MAX,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``count`` hears of every outcome; ``clock``, ``sleep`` and ``jitter`` are for tests."""
        self._relay = relay
        self._sender = sender
        self._count = count
        self._queue_letters_max = queue_letters_max
        self._delivery_timeout_s = delivery_timeout_s
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._slots = asyncio.Semaphore(DELIVERIES_AT_ONCE_MAX)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.Future[None]] = set()
        self._closing = False
        self._overflowing = False

    @property
    def waiting(self) -> int:
        """Letters that are not delivered yet, those under way included."""
        return len(self._tasks)

    def send(self, letter: Letter) -> None:
        """Have the letter sent. Returns at once, whatever becomes of it; a full queue drops it."""
        number = next(self._numbers)
        if self._closing or len(self._tasks) >= self._queue_letters_max:
            if not self._overflowing:
                # Once for each time that it fills up: a crowd must not fill the log as well.
                self._overflowing = True
                state = "stopping" if self._closing else f"full: {len(self._tasks)} mails wait"
                logbook.MAILS_OVERFLOW.log(mail=number, reason=state)
            self._count("overflowed")
            return
        self._overflowing = False
        task = asyncio.get_running_loop().create_task(self._send(letter, number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, *, timeout_s: float) -> None:
        """Give each waiting letter one more try, within ``timeout_s`` in all; drop the rest."""
        self._closing = True
        for pause in self._pauses:
            pause.cancel()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        ends = await asyncio.gather(*late, return_exceptions=True)
        unsent = sum(isinstance(end, asyncio.CancelledError) for end in ends)
        for _ in range(unsent):
            self._count("unsent")
        if unsent:
            logbook.MAILS_UNSENT.log(count=unsent, timeout_s=timeout_s)

    async def _send(self, letter: Letter, number: int) -> None:
        try:
            outcome = await self._try_until_final(letter, number)
        except PermanentFailure as failure:
            logbook.MAIL_REFUSED.log(mail=number, failure=failure)
            outcome = "refused"
        except Exception as error:
            report_failure(f"sending mail {number} failed", error)
            outcome = "refused"
        self._count(outcome)

    async def _try_until_final(self, letter: Letter, number: int) -> Outcome:
        # One Message-ID for all tries: a mail that came twice is known for one.
        message = compose(letter, self._sender)
        ends_at_s = self._clock() + self._give_up_after_s
        for tries in itertools.count(1):
            try:
                async with self._slots:
                    await self._relay.deliver(
                        message, letter.recipient, timeout_s=self._delivery_timeout_s
                    )
            except TemporaryFailure as failure:
                pause_s = find_backoff_s(tries, self._jitter())
                if self._closing:
                    logbook.MAIL_ABANDONED.log(mail=number, failure=failure)
                    return "unsent"
                if self._clock() + pause_s > ends_at_s:
                    logbook.MAIL_EXPIRED.log(mail=number, tries=tries, failure=failure)
                    return "expired"
                logbook.MAIL_DEFERRED.log(
                    mail=number, pause_s=pause_s, tries=tries, failure=failure
                )
                self._count("deferred")
                await self._pause(pause_s)
            else:
                logbook.MAIL_DELIVERED.log(mail=number, tries=tries)
                return "delivered"
        raise AssertionError("the loop has no end of its own")

    async def _pause(self, pause_s: float) -> None:
        """Sleep; ``close`` cuts it short."""
        pause = asyncio.ensure_future(self._sleep(pause_s))
        self._pauses.add(pause)
        try:
            await asyncio.wait({pause})
        finally:
            pause.cancel()
            self._pauses.discard(pause)


def find_backoff_s(tries: int, jitter: float) -> float:
    """The pause after that many tries: doubled each time, and its upper half drawn by lot.

    ``jitter`` is from 0 to 1. Letters that failed together must not all come back together.
    """
    full_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(tries - 1, 16))
    return full_s * (1 + jitter) / 2


def parse_sender(text: str) -> Address:
    """The address that mails come from, of ``joe@example.com`` or ``Joe <joe@example.com>``.

    Raises ValueError with a sentence.
    """
    name, mailbox = parseaddr(text)
    split = _split_mailbox(mailbox)
    if split is None or not mailbox.isascii() or not text.isprintable():
        raise ValueError(
            "must be an ASCII address like wallet@example.com or Wallet sync <wallet@example.com>"
        )
    return Address(name, *split)


def compose(letter: Letter, sender: Address) -> EmailMessage:
    """The mail of a letter: text and HTML, with all headers.

    Raises PermanentFailure when its recipient is no address that mail can be sent to.
    """
    split = _split_mailbox(letter.recipient)
    if split is None:
        raise PermanentFailure("the address is in a form that mail is not sent to")
    message = EmailMessage(policy.SMTPUTF8.clone(max_line_length=LINE_CHARS_MAX))
    message["From"] = sender
    message["To"] = Address("", *split)
    message["Subject"] = letter.subject
    message["Date"] = datetime.now(UTC)
    message["Message-ID"] = f"<{secrets.token_hex(16)}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, section 5: no answers, please.
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    return message


_ATOM: Final = r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\x00-\x7f])+"
_LABEL: Final = r"(?:[A-Za-z0-9_-]|[^\x00-\x7f])+"
_MAILBOX: Final = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@({_LABEL}(?:\.{_LABEL})*)")
"""RFC 5321 and 6531, but for quoted names and address literals: nobody registers with those to read
mail, and without them nothing in an address can mean anything else to a header or a command."""


def _split_mailbox(address: str) -> tuple[str, str] | None:
    match = _MAILBOX.fullmatch(address) if address.isprintable() else None
    return None if match is None else (match[1], match[2])
