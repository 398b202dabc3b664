"""The queue of letters: in virtual time with a scripted relay, and with real ones."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP

from tests.mail.relays import Inbox, cut, serve_smtp
from tests.mail.secrets import SENDER, make_letter
from wsserver.letters import Letter
from wsserver.mail import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    DELIVERIES_AT_ONCE_MAX,
    Mailer,
    Outcome,
    compose,
    find_backoff_s,
    parse_sender,
)
from wsserver.smtp import (
    ConsoleRelay,
    PermanentFailure,
    Relay,
    SmtpRelay,
    TemporaryFailure,
    parse_smtp_url,
)

pytestmark = pytest.mark.usefixtures("no_secret_is_logged")

WAIT_S = 20.0


class VirtualTime:
    """A clock that stands still until it is advanced, and the sleeps that hang on it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        wakes = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + duration_s, wakes))
        await wakes

    @property
    def next_s(self) -> float:
        """How long until somebody wakes."""
        return min(due_s for due_s, wakes in self._sleepers if not wakes.done()) - self.now_s

    async def advance(self, duration_s: float) -> None:
        await settle()
        self.now_s += duration_s
        for due_s, wakes in self._sleepers:
            if due_s <= self.now_s and not wakes.done():
                wakes.set_result(None)
        await settle()


class ScriptedRelay:
    """Meets each delivery with the next of its script, and takes the mail when that is used up."""

    def __init__(self, *script: Exception | Callable[[], Awaitable[None]]) -> None:
        self._script = list(script)
        self.taken: list[str] = []
        self.messages: list[EmailMessage] = []
        self.under_way = 0
        self.under_way_max = 0

    async def deliver(self, message: EmailMessage, recipient: str, *, timeout_s: float) -> None:
        self.messages.append(message)
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            match self._script.pop(0) if self._script else None:
                case Exception() as error:
                    raise error
                case None:
                    await asyncio.sleep(0)  # Others get their turn, as they would with a real one.
                case act:
                    await act()
        finally:
            self.under_way -= 1
        self.taken.append(recipient)


class Bench:
    """A mailer, its virtual time and what it counted."""

    def __init__(self, relay: Relay, **options: float) -> None:
        self.time = VirtualTime()
        self.counts: Counter[Outcome] = Counter()
        self.mailer = Mailer(
            relay,
            SENDER,
            count=self._count,
            clock=self.time.clock,
            sleep=self.time.sleep,
            jitter=lambda: 1.0,
            **options,  # type: ignore[arg-type]  # numbers all of them
        )

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1


async def settle() -> None:
    """Let everything run that can without time going on."""
    for _ in range(20):
        await asyncio.sleep(0)


def defer() -> TemporaryFailure:
    return TemporaryFailure("the relay answered 450 to the recipient")


async def test_a_letter_is_delivered_and_counted() -> None:
    relay = ScriptedRelay()
    bench = Bench(relay)

    bench.mailer.send(make_letter())
    await settle()

    assert relay.taken == [make_letter().recipient]
    assert bench.counts == {"delivered": 1}
    assert bench.mailer.waiting == 0


async def test_a_temporary_failure_is_tried_again_after_pauses_that_double() -> None:
    relay = ScriptedRelay(defer(), defer(), defer())
    bench = Bench(relay)

    bench.mailer.send(make_letter())
    await settle()
    pauses_s = []
    for _ in range(3):
        pauses_s.append(bench.time.next_s)
        await bench.time.advance(pauses_s[-1] - 0.001)
        assert relay.taken == []
        await bench.time.advance(0.001)

    assert pauses_s == [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S]
    assert bench.counts == {"deferred": 3, "delivered": 1}


async def test_all_tries_of_a_letter_are_one_mail() -> None:
    relay = ScriptedRelay(defer())
    bench = Bench(relay)

    bench.mailer.send(make_letter())
    await bench.time.advance(BACKOFF_FIRST_S)

    first, second = relay.messages
    assert first["Message-ID"] == second["Message-ID"]


async def test_a_permanent_failure_drops_the_letter() -> None:
    relay = ScriptedRelay(PermanentFailure("the relay answered 550 to the recipient"))
    bench = Bench(relay)

    bench.mailer.send(make_letter())
    await bench.time.advance(BACKOFF_MAX_S)

    assert len(relay.messages) == 1
    assert bench.counts == {"refused": 1}


async def test_a_letter_that_fails_too_long_is_given_up() -> None:
    relay = ScriptedRelay(*(defer() for _ in range(1000)))
    bench = Bench(relay, give_up_after_s=100.0)

    bench.mailer.send(make_letter())
    for _ in range(200):
        await bench.time.advance(1.0)

    # After 0, 5, 15, 35 and 75 seconds; the next would be after 155.
    assert len(relay.messages) == 5
    assert bench.counts == {"deferred": 4, "expired": 1}
    assert bench.mailer.waiting == 0


async def test_a_full_queue_drops_the_newest_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    relay = ScriptedRelay(*(wait for _ in range(3)))
    bench = Bench(relay, queue_letters_max=3)
    names = [f"user{number}@example.com" for number in range(6)]

    for name in names:
        bench.mailer.send(make_letter(name))
    await settle()
    gate.set()
    await settle()

    assert relay.taken == names[:3]
    assert bench.counts == {"delivered": 3, "overflowed": 3}
    assert caplog.text.count("are dropped: full: 3 mails wait") == 1


async def test_a_letter_that_waits_for_its_next_try_keeps_its_place_in_the_queue() -> None:
    bench = Bench(ScriptedRelay(defer()), queue_letters_max=1)

    bench.mailer.send(make_letter())
    await settle()
    bench.mailer.send(make_letter())

    assert bench.mailer.waiting == 1
    assert bench.counts == {"deferred": 1, "overflowed": 1}
    await bench.mailer.close(timeout_s=WAIT_S)


async def test_few_are_delivered_at_once_and_one_that_stalls_holds_up_no_other() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    relay = ScriptedRelay(wait)
    bench = Bench(relay)

    for number in range(50):
        bench.mailer.send(make_letter(f"user{number}@example.com"))
    for _ in range(10):
        await settle()

    assert len(relay.taken) == 49
    assert relay.under_way_max == DELIVERIES_AT_ONCE_MAX
    gate.set()
    await settle()
    assert bench.counts == {"delivered": 50}


async def test_a_letter_between_two_tries_leaves_its_slot_to_others() -> None:
    relay = ScriptedRelay(*(defer() for _ in range(DELIVERIES_AT_ONCE_MAX)))
    bench = Bench(relay)

    for number in range(DELIVERIES_AT_ONCE_MAX + 1):
        bench.mailer.send(make_letter(f"user{number}@example.com"))
    await settle()

    assert relay.taken == [f"user{DELIVERIES_AT_ONCE_MAX}@example.com"]
    await bench.mailer.close(timeout_s=WAIT_S)


async def test_closing_gives_what_waits_one_more_try() -> None:
    relay = ScriptedRelay(defer(), defer(), TemporaryFailure("the relay did not answer in time"))
    bench = Bench(relay)
    for name in ("ann@example.com", "bob@example.com"):
        bench.mailer.send(make_letter(name))
    await settle()

    await bench.mailer.close(timeout_s=WAIT_S)

    assert len(relay.messages) == 4
    assert len(relay.taken) == 1
    assert bench.counts == {"deferred": 2, "delivered": 1, "unsent": 1}
    assert bench.mailer.waiting == 0


async def test_closing_ends_in_time_though_the_relay_stalls() -> None:
    async def stall() -> None:
        await asyncio.Event().wait()

    relay = ScriptedRelay(*(stall for _ in range(DELIVERIES_AT_ONCE_MAX)))
    bench = Bench(relay)
    for number in range(DELIVERIES_AT_ONCE_MAX + 2):
        bench.mailer.send(make_letter(f"user{number}@example.com"))
    await settle()

    await asyncio.wait_for(bench.mailer.close(timeout_s=0.05), WAIT_S)
    await settle()

    assert bench.counts == {"unsent": DELIVERIES_AT_ONCE_MAX + 2}
    assert bench.mailer.waiting == 0
    assert relay.taken == []


async def test_a_closed_queue_takes_no_letter() -> None:
    relay = ScriptedRelay()
    bench = Bench(relay)
    await bench.mailer.close(timeout_s=0)

    bench.mailer.send(make_letter())
    await settle()

    assert relay.taken == []
    assert bench.counts == {"overflowed": 1}


async def test_a_failure_of_our_own_is_logged_without_its_text_and_ends_that_letter_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = ScriptedRelay(RuntimeError(f"boom: {make_letter().recipient}"))
    bench = Bench(relay)

    bench.mailer.send(make_letter())
    bench.mailer.send(make_letter())
    await settle()

    assert bench.counts == {"refused": 1, "delivered": 1}
    assert "sending mail 1 failed" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "boom" not in caplog.text


def test_a_pause_is_drawn_from_the_upper_half_and_bounded() -> None:
    assert find_backoff_s(1, 0.0) == BACKOFF_FIRST_S / 2
    assert find_backoff_s(1, 1.0) == BACKOFF_FIRST_S
    assert find_backoff_s(10_000, 1.0) == BACKOFF_MAX_S


# With real relays.


async def until_counted(bench: Bench, outcome: Outcome, *, times: int = 1) -> None:
    async with asyncio.timeout(WAIT_S):
        while bench.counts[outcome] < times:
            await asyncio.sleep(0.01)


def relay_on(port: int) -> SmtpRelay | ConsoleRelay:
    return parse_smtp_url(f"smtp://127.0.0.1:{port}")


async def test_a_relay_that_refuses_for_now_gets_the_letter_later() -> None:
    inbox = Inbox(
        recipient_answers=["450 4.2.0 try again, joe.secret@example.com"],
        mail_answers=["451 4.3.0 a moment"],
    )
    async with serve_smtp(inbox) as port:
        bench = Bench(relay_on(port))
        bench.mailer.send(make_letter())
        await until_counted(bench, "deferred")
        await bench.time.advance(BACKOFF_FIRST_S)
        await until_counted(bench, "deferred", times=2)
        assert inbox.envelopes == []

        await bench.time.advance(2 * BACKOFF_FIRST_S)
        await until_counted(bench, "delivered")

    assert len(inbox.envelopes) == 1
    assert bench.counts == {"deferred": 2, "delivered": 1}


async def test_a_relay_that_comes_back_gets_the_letter() -> None:
    inbox = Inbox()
    with socket.socket() as held:
        # Held without listening: connections are refused, and nobody else takes the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        bench = Bench(relay_on(port))
        bench.mailer.send(make_letter())
        await until_counted(bench, "deferred")
        held.listen()
        async with serve_smtp(inbox, listener=held):
            await bench.time.advance(BACKOFF_FIRST_S)
            await until_counted(bench, "delivered")

    assert len(inbox.envelopes) == 1


async def test_a_relay_that_hangs_up_once_gets_the_letter() -> None:
    async def hang_up_once(server: SMTP) -> None:
        inbox.before_mail = None
        cut(server)

    inbox = Inbox(before_mail=hang_up_once)
    async with serve_smtp(inbox) as port:
        bench = Bench(relay_on(port))
        bench.mailer.send(make_letter())
        await until_counted(bench, "deferred")
        await bench.time.advance(BACKOFF_FIRST_S)
        await until_counted(bench, "delivered")

    # The one that was cut off may have been read to its end by aiosmtpd; ours counts one.
    assert inbox.envelopes[-1].rcpt_tos == [make_letter().recipient]
    assert bench.counts == {"deferred": 1, "delivered": 1}


async def test_a_relay_that_refuses_for_good_is_not_asked_again() -> None:
    inbox = Inbox(recipient_answers=["550 5.1.1 joe.secret@example.com is nobody"])
    async with serve_smtp(inbox) as port:
        bench = Bench(relay_on(port))
        bench.mailer.send(make_letter())
        await until_counted(bench, "refused")
        await bench.time.advance(BACKOFF_MAX_S)

    assert inbox.envelopes == []
    assert bench.counts == {"refused": 1}


async def test_closing_delivers_what_waits_to_a_real_relay() -> None:
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        bench = Bench(relay_on(port))
        for number in range(20):
            bench.mailer.send(make_letter(f"user{number}@example.com"))
        await bench.mailer.close(timeout_s=WAIT_S)

    recipients = {recipient for envelope in inbox.envelopes for recipient in envelope.rcpt_tos}
    assert recipients == {f"user{number}@example.com" for number in range(20)}
    assert bench.counts == {"delivered": 20}


# What is sent.


@pytest.mark.parametrize(
    "recipient",
    [
        "joe@example.com\r\nBcc: eve@example.com",
        "joe@example.com\nBcc: eve@example.com",
        "joe@example.com, eve@example.com",
        "joe(eve@example.com)@example.com",
        "Joe <eve@example.com>",
        "joe@example.com> SIZE=1",
        '"joe eve"@example.com',
        "joe@[127.0.0.1]",
        "joe..eve@example.com",
        "joe@example.com\u2028Bcc: eve@example.com",
        "joe\x00@example.com",
        "joe@@example.com",
        "joe",
        "",
    ],
)
async def test_an_address_that_could_mean_more_than_itself_is_sent_nothing(recipient: str) -> None:
    relay = ScriptedRelay()
    bench = Bench(relay)

    bench.mailer.send(make_letter(recipient))
    await settle()

    assert relay.messages == []
    assert bench.counts == {"refused": 1}


async def test_a_subject_cannot_bring_a_header_along() -> None:
    relay = ScriptedRelay()
    bench = Bench(relay)

    bench.mailer.send(Letter("joe@example.com", "Hello\r\nBcc: eve@example.com", "text", "<p>"))
    await settle()

    assert relay.messages == []
    assert bench.counts == {"refused": 1}


@pytest.mark.parametrize(
    "recipient", ["joe+tag@mail.example.com", "o'brien@example.com", "用户@例え.jp", "a@localhost"]
)
def test_an_ordinary_address_is_the_only_recipient(recipient: str) -> None:
    message = compose(make_letter(recipient), SENDER)

    assert [address.addr_spec for address in message["To"].addresses] == [recipient]


def test_a_letter_shows_nothing_of_itself() -> None:
    assert repr(make_letter()) == "Letter()"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wallet@example.org", "wallet@example.org"),
        ("Wallet sync <wallet@example.org>", "Wallet sync <wallet@example.org>"),
        ('"Sync, Inc." <w@example.org>', '"Sync, Inc." <w@example.org>'),
    ],
)
def test_a_sender_may_have_a_name(text: str, shown: str) -> None:
    assert str(parse_sender(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "wallet", "wallet@", "@example.org", "wället@example.org", "a@b.c\r\nBcc: d@e.f",
             "A\r\nBcc: d@e.f <a@b.c>", "<a b@example.org>"]
)  # fmt: skip
def test_a_sender_that_relays_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an ASCII address"):
        parse_sender(text)


async def test_no_task_is_left_behind() -> None:
    bench = Bench(ScriptedRelay(defer()))
    bench.mailer.send(make_letter())
    await settle()
    before = asyncio.all_tasks()

    await bench.mailer.close(timeout_s=WAIT_S)
    await settle()

    assert len(before) > 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
