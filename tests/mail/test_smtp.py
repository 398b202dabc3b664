"""The way to a relay, against real SMTP servers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.mail.relays import Authority, Inbox, check_login, cut, serve_silence, serve_smtp
from tests.mail.secrets import QUOTED_PASSWORD, RECIPIENT, SENDER, TOKEN, USER, make_letter
from wsserver.mail import compose
from wsserver.smtp import (
    ConsoleRelay,
    PermanentFailure,
    SmtpRelay,
    TemporaryFailure,
    parse_smtp_url,
)

pytestmark = pytest.mark.usefixtures("no_secret_is_logged")

TIMEOUT_S = 20.0

Deliver = Callable[..., Awaitable[None]]


async def deliver_here(url: str, recipient: str = RECIPIENT, timeout_s: float = TIMEOUT_S) -> None:
    message = compose(make_letter(recipient), SENDER)
    await parse_smtp_url(url).deliver(message, recipient, timeout_s=timeout_s)


async def deliver_on_uvloop(
    url: str, recipient: str = RECIPIENT, timeout_s: float = TIMEOUT_S
) -> None:
    uvloop = pytest.importorskip("uvloop")
    # In a thread: aiosmtpd's STARTTLS needs asyncio's own loop.

    async def deliver_and_linger() -> None:
        try:
            await deliver_here(url, recipient, timeout_s)
        finally:
            # uvloop takes it ill when it is closed while TLS still says goodbye.
            await asyncio.sleep(0.3)

    await asyncio.to_thread(lambda: uvloop.run(deliver_and_linger()))


@pytest.fixture(params=[deliver_here, deliver_on_uvloop], ids=["asyncio", "uvloop"])
def deliver(request: pytest.FixtureRequest) -> Deliver:
    """Delivers a mail to the relay of that URL, on either event loop that a server may run on."""
    result: Deliver = request.param
    return result


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is the only one that this process trusts."""
    path = tmp_path / "authority.pem"
    path.write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


async def test_a_plain_relay_is_given_the_mail(deliver: Deliver) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        await deliver(f"smtp://127.0.0.1:{port}")

    [envelope], [message] = inbox.envelopes, inbox.messages
    assert envelope.mail_from == "wallet@example.org"
    assert envelope.rcpt_tos == [RECIPIENT]
    assert message["From"] == "Wallet sync <wallet@example.org>"
    assert message["To"] == RECIPIENT
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", message["Message-ID"])
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert inbox.encrypted == [False]
    assert inbox.helo_names == ["example.org"]


async def test_the_link_stands_in_the_raw_mail_unbroken(deliver: Deliver) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        await deliver(f"smtp://127.0.0.1:{port}")

    [envelope] = inbox.envelopes
    link = f"https://sync.example.org/wallets/verify?token={TOKEN}"
    assert isinstance(envelope.content, bytes)
    assert f"\r\n{link}\r\n".encode() in envelope.content


@pytest.mark.usefixtures("trusted")
async def test_starttls_is_used_where_it_is_offered(deliver: Deliver, authority: Authority) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox, starttls=authority.server_context()) as port:
        await deliver(f"smtp://127.0.0.1:{port}")

    assert inbox.encrypted == [True]


async def test_starttls_never_stays_plain(deliver: Deliver, authority: Authority) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox, starttls=authority.server_context()) as port:
        await deliver(f"smtp://127.0.0.1:{port}?starttls=never")

    assert inbox.encrypted == [False]


async def test_starttls_required_gives_nothing_to_a_relay_without_it(deliver: Deliver) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox) as port:
        with pytest.raises(TemporaryFailure, match="STARTTLS"):
            await deliver(f"smtp://127.0.0.1:{port}?starttls=required")

    assert inbox.envelopes == []


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_certificate_that_is_not_trusted_gets_no_mail(
    deliver: Deliver, authority: Authority, implicit: bool
) -> None:
    inbox = Inbox()
    context = authority.server_context()
    async with serve_smtp(
        inbox, tls=context if implicit else None, starttls=None if implicit else context
    ) as port:
        with pytest.raises(TemporaryFailure, match=r"certificate was not accepted \(.+issuer"):
            await deliver(f"{'smtps' if implicit else 'smtp'}://127.0.0.1:{port}")

    assert inbox.envelopes == []


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_of_another_host_gets_no_mail(
    deliver: Deliver, authority: Authority
) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox, tls=authority.server_context("relay.test")) as port:
        with pytest.raises(TemporaryFailure, match=r"certificate was not accepted \(.+mismatch"):
            await deliver(f"smtps://127.0.0.1:{port}")

    assert inbox.envelopes == []


@pytest.mark.usefixtures("trusted")
async def test_smtps_is_encrypted_from_the_first_byte(
    deliver: Deliver, authority: Authority
) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox, tls=authority.server_context()) as port:
        await deliver(f"smtps://localhost:{port}")

    assert len(inbox.envelopes) == 1


async def test_smtps_to_a_plain_relay_fails_for_now(deliver: Deliver) -> None:
    async with serve_smtp(Inbox()) as port:
        with pytest.raises(TemporaryFailure, match="TLS with the relay failed"):
            await deliver(f"smtps://127.0.0.1:{port}")


@pytest.mark.usefixtures("trusted")
async def test_credentials_open_a_relay_that_asks_for_them(
    deliver: Deliver, authority: Authority
) -> None:
    inbox = Inbox()
    async with serve_smtp(
        inbox, starttls=authority.server_context(), authenticator=check_login, auth_required=True
    ) as port:
        await deliver(f"smtp://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port}")

    assert inbox.encrypted == [True]


@pytest.mark.usefixtures("trusted")
async def test_wrong_credentials_are_refused_for_good(
    deliver: Deliver, authority: Authority
) -> None:
    async with serve_smtp(
        Inbox(), starttls=authority.server_context(), authenticator=check_login, auth_required=True
    ) as port:
        with pytest.raises(PermanentFailure, match=r"535 5\.7\.8 to the credentials"):
            await deliver(f"smtp://{USER}:{QUOTED_PASSWORD}x@127.0.0.1:{port}")


async def test_credentials_for_a_relay_that_takes_none_fail_for_now(deliver: Deliver) -> None:
    async with serve_smtp(Inbox()) as port:
        with pytest.raises(TemporaryFailure, match="AUTH"):
            await deliver(f"smtp://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("step", "answer", "failure", "text"),
    [
        (
            "recipient",
            f"550 5.1.1 {RECIPIENT} is unknown",
            PermanentFailure,
            "550 5.1.1 to the rec",
        ),
        ("recipient", "450 4.2.0 unknown", TemporaryFailure, "450 4.2.0 to the recipient"),
        ("mail", "554 unknown", PermanentFailure, "554 to the mail"),
        ("mail", "452 4.3.1 unknown", TemporaryFailure, "452 4.3.1 to the mail"),
    ],
)
async def test_an_answer_decides_by_its_first_digit_and_is_told_without_its_words(
    deliver: Deliver, step: str, answer: str, failure: type[Exception], text: str
) -> None:
    inbox = Inbox()
    (inbox.recipient_answers if step == "recipient" else inbox.mail_answers).append(answer)
    async with serve_smtp(inbox) as port:
        with pytest.raises(failure, match=re.escape(text)) as raised:
            await deliver(f"smtp://127.0.0.1:{port}")

    assert "joe" not in str(raised.value)
    assert "unknown" not in str(raised.value)


async def test_a_relay_that_refuses_the_connection_is_tried_again(deliver: Deliver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TemporaryFailure, match=r"can't be reached"):
        await deliver(f"smtp://127.0.0.1:{port}")


async def test_a_relay_that_says_nothing_is_left_in_time(deliver: Deliver) -> None:
    async with serve_silence() as (port, gone):
        with pytest.raises(TemporaryFailure, match="did not answer in time"):
            await deliver(f"smtp://127.0.0.1:{port}", timeout_s=0.2)
        # The connection is closed, not leaked.
        assert await asyncio.wait_for(gone.get(), 10) == b""


async def test_a_relay_that_stalls_over_the_mail_is_left_in_time(deliver: Deliver) -> None:
    async def stall(server: object) -> None:
        await asyncio.Event().wait()

    async with serve_smtp(Inbox(before_mail=stall)) as port:
        with pytest.raises(TemporaryFailure, match="did not answer in time"):
            await deliver(f"smtp://127.0.0.1:{port}", timeout_s=1)


async def test_a_relay_that_hangs_up_in_the_middle_is_tried_again(deliver: Deliver) -> None:
    async def hang_up(server: SMTP) -> None:
        cut(server)

    async with serve_smtp(Inbox(before_mail=hang_up)) as port:
        with pytest.raises(TemporaryFailure, match=r"closed the connection|can't be reached"):
            await deliver(f"smtp://127.0.0.1:{port}")


async def test_a_relay_that_hangs_up_after_it_took_the_mail_has_taken_it(deliver: Deliver) -> None:
    class RudeInbox(Inbox):
        async def handle_QUIT(  # noqa: N802  # aiosmtpd's name for it
            self, server: SMTP, session: Session, envelope: Envelope
        ) -> str:
            cut(server)
            return "221 bye"

    inbox = RudeInbox()
    async with serve_smtp(inbox) as port:
        await deliver(f"smtp://127.0.0.1:{port}")

    assert len(inbox.envelopes) == 1


@pytest.mark.parametrize("recipient", ["jörg@example.com", "joe@bücher.example"])
async def test_an_address_beyond_ascii_goes_by_smtputf8(deliver: Deliver, recipient: str) -> None:
    inbox = Inbox()
    async with serve_smtp(inbox, enable_SMTPUTF8=True) as port:
        await deliver(f"smtp://127.0.0.1:{port}", recipient)

    [envelope], [message] = inbox.envelopes, inbox.messages
    assert envelope.rcpt_tos == [recipient]
    assert "SMTPUTF8" in envelope.mail_options
    assert message["To"] == recipient


async def test_an_address_beyond_ascii_is_refused_by_a_relay_without_smtputf8(
    deliver: Deliver,
) -> None:
    async with serve_smtp(Inbox()) as port:
        with pytest.raises(PermanentFailure, match="SMTPUTF8"):
            await deliver(f"smtp://127.0.0.1:{port}", "jörg@example.com")


async def test_the_console_prints_the_mail_with_its_link(
    deliver: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    await deliver("console:")

    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"To: {RECIPIENT}\nSubject: Confirm your email address for " in printed.err
    assert f"\nhttps://sync.example.org/wallets/verify?token={TOKEN}\n" in printed.err
    assert "<p>" not in printed.err


# The URL.


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://mail.test", ("mail.test", 587, "starttls_if_offered", None, None)),
        ("smtp://mail.test:25/", ("mail.test", 25, "starttls_if_offered", None, None)),
        ("smtp://mail.test?starttls=required", ("mail.test", 587, "starttls", None, None)),
        ("smtp://10.0.0.1:25?starttls=never", ("10.0.0.1", 25, "none", None, None)),
        ("smtps://mail.test", ("mail.test", 465, "tls", None, None)),
        ("smtps://u:p%40@mail.test:1465", ("mail.test", 1465, "tls", "u", "p@")),
        ("smtp://u:p@mail.test", ("mail.test", 587, "starttls", "u", "p")),
        ("smtp://u:p@localhost:25", ("localhost", 25, "starttls_if_offered", "u", "p")),
        ("smtp://u:p@[::1]:25?starttls=never", ("::1", 25, "none", "u", "p")),
        ("smtps://a%40b.test:p:q@[fd00::1]", ("fd00::1", 465, "tls", "a@b.test", "p:q")),
    ],
)  # fmt: skip
def test_a_url_names_a_relay(url: str, relay: tuple[str, int, str, str | None, str | None]) -> None:
    parsed = parse_smtp_url(url)

    assert isinstance(parsed, SmtpRelay)
    assert (parsed.host, parsed.port, parsed.security, parsed.user, parsed.password) == relay


def test_console_is_a_relay() -> None:
    assert parse_smtp_url("console:") == ConsoleRelay()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://u:S3cret@mail.test", "must begin with smtp://"),
        ("mail.test", "must begin with smtp://"),
        ("smtp://", "names no host"),
        ("smtp://u:S3cret@", "names no host"),
        ("smtp://u:S3cret@mail.test:0", "from 1 to 65535"),
        ("smtp://u:S3cret@mail.test:65536", "can't be read"),
        ("smtp://u:S3cret@mail.test:smtp", "can't be read"),
        ("smtp://u:S3c/ret@mail.test", "%2F"),
        ("smtp://u:1/S3cret@mail.test", "%2F"),
        ("smtp://u:1?S3cret@mail.test", "%3F"),
        ("smtp://u:1#S3cret@mail.test", "%23"),
        ("smtp://u:S3cret\u2100@mail.test", "can't be read"),
        ("smtp://[S3cret", "can't be read"),
        ("smtp://u@mail.test", "a user and a password"),
        ("smtp://:S3cret@mail.test", "a user and a password"),
        ("smtp://u:S3cret @mail.test", "spaces"),
        ("smtp://u:S3cret@mail.test\r\n", "control characters"),
        ("smtp://mail.test/inbox", "may follow"),
        ("smtp://mail.test?starttls=maybe", "starttls=required and"),
        ("smtp://mail.test?tls=required", "starttls=required and"),
        ("smtps://u:S3cret@mail.test?starttls=never", "no options"),
        ("smtp://u:S3cret@mail.test?starttls=never", "unencrypted"),
        ("smtp://u:S3cret@10.0.0.1?starttls=never", "unencrypted"),
        ("smtp://u:S3cret@localhost.example?starttls=never", "unencrypted"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as raised:
        parse_smtp_url(url)

    assert "S3c" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_relay_shows_its_host_alone() -> None:
    relay = parse_smtp_url("smtps://wallet:S3cret@mail.test")

    assert str(relay) == "smtps://mail.test:465"
    assert "S3cret" not in repr(relay)
    assert "user" not in repr(relay)
