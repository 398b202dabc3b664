"""Registration by mail and resets, from outside: a real server, a real relay, a real browser."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.mailing import (
    PUBLIC_URL,
    Town,
    mail_settings,
    new_credentials,
    open_town,
    read_text,
    until,
)
from tests.e2e.rawclient import KDF, PASSWORD
from tests.e2e.serving import fetch, find_free_port, open_database
from tests.mail.browser import find_browser, open_tab, run_browser
from tests.mail.relays import Authority, Inbox, serve_silence, serve_smtp
from wsserver import mail

JOE = "joe@example.com"
OTHER_SEED = "fedcba9876543210" * 4


@pytest.fixture
async def town(serve: Serve) -> AsyncIterator[Town]:
    async with open_town(serve) as town:
        yield town


def page_url(town: Town, page: str, token: str) -> str:
    return f"http://127.0.0.1:{town.served.server.port}/{page}?token={token}"


# Registering.


async def test_a_registration_is_activated_by_the_token_of_its_mail_once(town: Town) -> None:
    client = await town.served.open()

    link = await town.register(client, JOE)
    before = await client.fail("session.login", email=JOE, password=PASSWORD, deviceId="laptop")
    wrong = await client.fail("session.login", email=JOE, password="another one", deviceId="laptop")
    assert await client.call("account.verify", token=link.token) == {}
    again = await client.fail("account.verify", token=link.token)
    opened = await client.login(JOE)

    assert link.url.startswith(f"{PUBLIC_URL}/verify?token=")
    assert (before.code, before.reason) == (403, "not_verified")
    assert (wrong.code, wrong.reason) == (401, "bad_credentials")
    assert (again.code, again.reason) == (404, "bad_verification_token")
    assert opened["sequence"] == 0


async def test_opening_the_page_of_a_link_does_not_use_it_up(town: Town) -> None:
    client = await town.served.open()
    link = await town.register(client, JOE)

    pages = [await fetch(page_url(town, link.page, link.token)) for _ in range(3)]

    for status, headers, text in pages:
        assert status == 200
        assert link.token in text
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert await client.call("account.verify", token=link.token) == {}


async def test_a_mail_goes_to_its_address_alone_and_answers_nobody(town: Town) -> None:
    client = await town.served.open()
    await town.register(client, JOE)

    [envelope] = town.inbox.envelopes
    [message] = town.inbox.messages
    assert envelope.rcpt_tos == [JOE]
    assert envelope.mail_from == "wallet-sync@sync.example.com"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"] == "Confirm your email address for sync.example.com"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


async def test_a_new_letter_makes_the_older_link_void(town: Town) -> None:
    client = await town.served.open()
    first = await town.register(client, JOE)

    assert await client.call("account.resendVerification", email=JOE) == {}
    second = await town.link(JOE, 2)
    refusal = await client.fail("account.verify", token=first.token)

    assert refusal.reason == "bad_verification_token"
    assert await client.call("account.verify", token=second.token) == {}
    assert await client.login(JOE)


async def test_of_two_registrations_the_newest_link_activates_its_own_credentials(
    town: Town,
) -> None:
    client = await town.served.open()
    first = await town.register(client, JOE, password="the first password")
    second = await town.register(client, JOE, password="the second password")

    refusal = await client.fail("account.verify", token=first.token)
    assert await client.call("account.verify", token=second.token) == {}

    assert refusal.reason == "bad_verification_token"
    wrong = await client.fail(
        "session.login", email=JOE, password="the first password", deviceId="laptop"
    )
    assert wrong.reason == "bad_credentials"
    assert await client.login(JOE, password="the second password")


async def test_an_address_is_one_however_its_letters_are_written(town: Town) -> None:
    client = await town.served.open()
    assert await client.register("Joe@Example.com") == {"verified": False}
    link = await town.link(JOE)

    await client.call("account.verify", token=link.token)

    assert await client.login("JOE@example.COM")


async def test_a_taken_address_is_answered_as_a_new_one_and_its_owner_is_told(town: Town) -> None:
    await town.open_account(JOE)
    stranger = await town.served.open()

    answer = await stranger.register(JOE, password="what the stranger would like")
    told = (await town.mails(JOE, 2))[-1]

    assert answer == {"verified": False}
    assert told["Subject"] == "You already have an account at sync.example.com"
    assert "token=" not in read_text(told)
    assert await stranger.login(JOE, "phone"), "nothing about the account has changed"


async def test_an_address_that_is_taken_meanwhile_stays_its_owners(town: Town) -> None:
    stranger, owner = await town.served.open(), await town.served.open()
    await town.register(stranger, JOE, password="the stranger's")
    link = await town.register(owner, JOE)
    await owner.call("account.verify", token=link.token)

    await stranger.register(JOE, password="the stranger's")
    await stranger.call("account.resendVerification", email=JOE)
    mails = await town.mails(JOE, 3)

    assert [("token=" in read_text(one)) for one in mails] == [True, True, False]
    assert await owner.login(JOE)


async def test_a_link_that_has_expired_activates_nothing(town: Town) -> None:
    client = await town.served.open()
    link = await town.register(client, JOE)
    expire(town, "registrations")

    refusal = await client.fail("account.verify", token=link.token)
    login = await client.fail("session.login", email=JOE, password=PASSWORD, deviceId="laptop")
    await client.call("account.resendVerification", email=JOE)
    again = await town.register(client, JOE)

    assert refusal.reason == "bad_verification_token"
    assert login.reason == "bad_credentials", "an expired registration holds nothing"
    assert len(town.mails_now(JOE)) == 2, "there was nothing to send another letter about"
    assert await client.call("account.verify", token=again.token) == {}


# Resets.


async def test_a_reset_sets_new_credentials_and_takes_the_wallet_with_it(town: Town) -> None:
    laptop = await town.open_account(JOE)
    phone, _ = await town.served.open_device(JOE, "phone")
    await laptop.push(1)
    await laptop.push(2)
    old = await laptop.call("device.list")
    token = (await (await town.served.open()).login(JOE, "tablet", since=0))["token"]
    epoch = (await (await town.served.open()).login(JOE, "desk"))["epoch"]

    link = await town.request_reset(JOE)
    status, _, text = await fetch(page_url(town, link.page, link.token))
    app = await town.served.open()
    reset = {"token": link.token, **new_credentials("a new password", OTHER_SEED)}
    assert await app.call("account.reset", **reset) == {}

    assert link.page == "reset"
    assert status == 200
    assert link.token in text
    for client in (laptop, phone):
        assert await client.hear("session.revoked") == [{"reason": "password_reset"}]
        assert await client.closed() == 4401
    assert (await app.fail("session.resume", token=token)).reason == "bad_token"
    assert (await app.fail("account.reset", **reset)).reason == "bad_reset_token"
    refusal = await app.fail("session.login", email=JOE, password=PASSWORD, deviceId="laptop")
    assert refusal.reason == "bad_credentials"
    prelogin = await app.call("account.prelogin", email=JOE)
    assert prelogin == {"clientSaltSeed": OTHER_SEED, "kdf": KDF}
    opened = await app.login(JOE, password="a new password", since=2, epoch=epoch)
    assert (opened["sequence"], opened["hmac"], opened["wallet"]) == (0, None, None)
    assert opened["epoch"] != epoch
    assert (await app.fail("wallet.get")).reason == "no_wallet"
    assert (await app.fail("wallet.get", sequence=1)).reason == "no_such_version"
    assert await app.call("wallet.history") == {"versions": []}
    listed = await app.call("device.list")
    assert {one["deviceId"] for one in listed["devices"]} >= {
        one["deviceId"] for one in old["devices"]
    }
    assert {one["appliedSequence"] for one in listed["devices"]} == {0}
    assert (await app.push(1))["sequence"] == 1


async def test_only_the_newest_reset_works_and_a_mail_for_one_thing_does_no_other(
    town: Town,
) -> None:
    await town.open_account(JOE)
    ann = await town.served.open()
    registered = await town.register(ann, "ann@example.com")
    first, second = await town.request_reset(JOE), await town.request_reset(JOE)

    for token in (first.token, registered.token):
        refusal = await ann.fail("account.reset", token=token, **new_credentials("a new password"))
        assert refusal.reason == "bad_reset_token"
    assert (await ann.fail("account.verify", token=second.token)).reason == "bad_verification_token"

    reset = {"token": second.token, **new_credentials("a new password")}
    assert await ann.call("account.reset", **reset) == {}


async def test_a_reset_that_is_not_used_changes_nothing_and_expires(town: Town) -> None:
    laptop = await town.open_account(JOE)
    await laptop.push(1)
    link = await town.request_reset(JOE)
    await fetch(page_url(town, link.page, link.token))
    expire(town, "resets")
    app = await town.served.open()

    refusal = await app.fail("account.reset", token=link.token, **new_credentials("a new password"))

    assert refusal.reason == "bad_reset_token"
    assert (await laptop.call("wallet.get"))["sequence"] == 1
    assert await app.login(JOE, "phone")


async def test_a_reset_for_nobody_and_for_who_has_not_verified_yet_sends_no_mail(
    town: Town,
) -> None:
    client = await town.served.open()
    await town.register(client, "ann@example.com")

    for email in ("nobody@example.com", "ann@example.com"):
        assert await client.call("account.requestReset", email=email) == {}
    await town.register(client, "last@example.com")

    assert town.mails_now("nobody@example.com") == []
    assert len(town.mails_now("ann@example.com")) == 1


async def test_a_password_change_makes_an_unused_reset_void(town: Town) -> None:
    """Or who had read an old mail could still take the account."""
    laptop = await town.open_account(JOE)
    link = await town.request_reset(JOE)
    await laptop.change_password(PASSWORD, "a changed password", 1)
    app = await town.served.open()

    refusal = await app.fail("account.reset", token=link.token, **new_credentials("a new password"))

    assert refusal.reason == "bad_reset_token"


# The relay.


async def test_an_answer_does_not_wait_for_a_relay_that_stalls(serve: Serve) -> None:
    async with serve_silence() as (port, gone):
        served = await serve(**mail_settings(f"smtp://127.0.0.1:{port}?starttls=never"))
        client = await served.open()
        await client.register(JOE)

        assert gone.empty(), "it was answered while the relay had the mail's connection open"

        await served.stop()


async def test_a_mail_arrives_once_its_relay_is_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "BACKOFF_FIRST_S", 0.02)
    inbox = Inbox()
    with socket.socket() as held:
        # Held without listening: connections are refused, and nobody else takes the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        url = f"smtp://127.0.0.1:{held.getsockname()[1]}?starttls=never"
        served = await serve(**mail_settings(url), admin_port=find_free_port())
        client = await served.open()
        await client.register(JOE)
        await until_deferred(served.admin_url)
        held.listen()
        async with serve_smtp(inbox, listener=held):
            town = Town(served, inbox)
            link = await town.link(JOE)
            await client.call("account.verify", token=link.token)
            await served.stop()

    assert len(inbox.envelopes) == 1


async def test_a_mail_goes_by_starttls_to_a_relay_whose_certificate_is_trusted(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, inbox = Authority(), Inbox()
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with serve_smtp(inbox, starttls=authority.server_context()) as port:
        served = await serve(**mail_settings(f"smtp://127.0.0.1:{port}?starttls=required"))
        town = Town(served, inbox)
        await town.register(await served.open(), JOE)
        await served.stop()

    assert inbox.encrypted == [True]


async def test_what_waits_is_delivered_when_the_server_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail, "BACKOFF_FIRST_S", 600.0)
    inbox = Inbox(recipient_answers=["450 4.2.1 later"])
    async with serve_smtp(inbox) as port:
        served = await serve(**mail_settings(f"smtp://127.0.0.1:{port}?starttls=never"))
        client = await served.open()
        await client.register(JOE)
        await until(lambda: "mail 1 waits for" in caplog.text)

        await served.stop()

    assert len(inbox.envelopes) == 1


async def test_the_console_prints_the_link_in_the_log(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    served = await serve(**mail_settings("console:"))
    client = await served.open()
    await client.register(JOE)
    printed = ""

    def has_come() -> bool:
        nonlocal printed
        printed += capsys.readouterr().err
        return "?token=" in printed

    await until(has_come)
    token = printed.partition("?token=")[2].split()[0]

    assert await client.call("account.verify", token=token) == {}


async def test_other_modes_send_no_mail_and_have_no_pages(serve: Serve) -> None:
    served = await serve(verification="open")
    client = await served.open()

    for method in ("account.resendVerification", "account.requestReset"):
        refusal = await client.fail(method, email=JOE)
        assert (refusal.code, refusal.reason) == (403, "not_allowed")
    for page in ("verify", "reset"):
        status, _, _ = await fetch(
            f"http://127.0.0.1:{served.server.port}/{page}?token={'ab' * 32}"
        )
        assert status == 404


# The browser.


BROWSER = find_browser()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path (CHROMIUM may name one)")
async def test_the_link_of_the_mail_works_in_a_browser_once(serve: Serve, tmp_path: Path) -> None:
    assert BROWSER is not None
    port = find_free_port()
    origin = f"http://127.0.0.1:{port}"
    async with (
        open_town(serve, port=port, public_url=origin) as town,
        run_browser(BROWSER, tmp_path / "profile") as address,
        open_tab(address) as tab,
    ):
        app = await town.served.open()
        link = await town.register(app, JOE)

        await tab.open(link.url)
        refusal = await app.fail("session.login", email=JOE, password=PASSWORD, deviceId="laptop")
        assert refusal.reason == "not_verified", "opening the page did nothing yet"
        await tab.press("Confirm my address")
        await tab.until("Your address is confirmed.")
        assert await app.login(JOE)
        await tab.open(link.url)
        await tab.press("Confirm my address")
        await tab.until("This link was used already")

        await app.push(1)
        reset = await town.request_reset(JOE)
        await tab.open(reset.url)
        seen = await tab.read()
        assert seen.startswith("Reset your account A reset deletes the wallet")
        code = await tab.read("code")
        assert (await app.call("wallet.get"))["sequence"] == 1, "the page has deleted nothing"
        stranger = await town.served.open()
        await stranger.call("account.reset", token=code, **new_credentials("a new password"))
        assert tab.complaints == []


def expire(town: Town, table: str) -> None:
    with open_database(town.served.database) as database:
        changed = database.execute(f"UPDATE {table} SET expires_at = 1").rowcount  # noqa: S608
    assert changed == 1


async def until_deferred(admin_url: str) -> None:
    """Returns once a first try to deliver a mail has failed."""
    async with asyncio.timeout(20):
        while True:
            _, _, figures = await fetch(f"{admin_url}/metrics")
            if 'outcome="deferred"' in figures:
                return
