"""The gateway in mode email: registrations wait for their mail, here as on ``/v1``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.mailing import Town, open_town
from tests.e2e.rawclient import PASSWORD, SEED
from tests.e2e.serving import find_free_port
from tests.lbry.client import API, Http

JOE = "joe@example.com"
SIGNUP = {"email": JOE, "password": PASSWORD, "clientSaltSeed": SEED}
AUTH = {"email": JOE, "password": PASSWORD, "deviceId": "laptop"}
NOT_VERIFIED = (401, {"error": "Unauthorized: Account is not verified"})
NO_MATCH = (401, {"error": "Unauthorized: No match for email"})


@pytest.fixture
async def town(serve: Serve) -> AsyncIterator[Town]:
    async with open_town(serve, lbry_port=find_free_port()) as town:
        yield town


@pytest.fixture
async def http(town: Town) -> AsyncIterator[Http]:
    http = Http(f"http://127.0.0.1:{town.served.server._settings.lbry_port}")
    yield http
    await http.close()


async def test_a_registration_waits_until_its_link_is_followed(town: Town, http: Http) -> None:
    assert await http.post("/signup", SIGNUP) == (201, {"verified": False})
    assert await http.post("/auth/full", AUTH) == NOT_VERIFIED
    change = {"email": JOE, "oldPassword": PASSWORD, "newPassword": "another password"}
    assert await http.post("/password", {**change, "clientSaltSeed": SEED}) == NOT_VERIFIED
    link = await town.link(JOE)

    verified = await http.send("GET", f"{API}/verify?verifyToken={link.token}")

    assert (verified.status_code, verified.text) == (200, "Your account has been verified.")
    assert verified.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (await http.post("/auth/full", AUTH))[0] == 200
    again = await http.send("GET", f"{API}/verify?verifyToken={link.token}")
    assert again.status_code == 403


async def test_the_link_may_be_followed_to_the_servers_own_page(town: Town, http: Http) -> None:
    await http.post("/signup", SIGNUP)
    link = await town.link(JOE)

    client = await town.served.open()
    assert await client.call("account.verify", token=link.token) == {}

    assert (await http.post("/auth/full", AUTH))[0] == 200


async def test_another_mail_may_be_asked_for(town: Town, http: Http) -> None:
    await http.post("/signup", SIGNUP)
    first = await town.link(JOE)

    assert await http.post("/verify/resend", {"email": "Joe@example.com"}) == (200, {})

    second = await town.link(JOE, 2)
    used = await http.send("GET", f"{API}/verify?verifyToken={first.token}")
    assert used.status_code == 403
    assert (await http.send("GET", f"{API}/verify?verifyToken={second.token}")).status_code == 200


async def test_nothing_is_sent_again_where_nothing_waits(town: Town, http: Http) -> None:
    assert await http.post("/verify/resend", {"email": JOE}) == NO_MATCH

    await town.open_account(JOE)

    assert await http.post("/verify/resend", {"email": JOE}) == NO_MATCH
    assert len(town.mails_now(JOE)) == 1


async def test_registering_a_taken_address_answers_as_a_new_one_does(
    town: Town, http: Http
) -> None:
    await town.open_account(JOE)

    assert await http.post("/signup", SIGNUP) == (201, {"verified": False})

    await town.mails(JOE, 2)
    assert (await http.post("/auth/full", AUTH))[0] == 200


async def test_a_registration_that_waits_has_no_salt_seed(town: Town, http: Http) -> None:
    await http.post("/signup", SIGNUP)

    status, _ = await http.get("/client-salt-seed", email="am9lQGV4YW1wbGUuY29t")

    assert status == 404
