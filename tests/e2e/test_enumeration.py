"""Nothing tells a stranger whether an address has an account: by content.

How long answers take is measured by `benchmarks/enumeration.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.e2e.conftest import Serve
from tests.e2e.mailing import Town, new_credentials, open_town
from tests.e2e.rawclient import SEED, open_socket
from tests.e2e.serving import Served, open_database
from wsserver.gate import GateLimits
from wsserver.methods import DECOY_KDF

UNKNOWN, WAITING = "nobody@example.com", "waiting@example.com"
OWNED, DISABLED = "owner@example.com", "disabled@example.com"
EVERYBODY = (UNKNOWN, WAITING, OWNED, DISABLED)
"""An address of each kind; a stranger is to find them all alike."""

CLIENTS_KDF = {"name": "scrypt", "n": DECOY_KDF.n, "r": DECOY_KDF.r, "p": DECOY_KDF.p}
"""What clients derive their keys with; who chooses another can be told from nobody by that."""
STEPS = 150


class Stranger:
    """Somebody with an address that is not theirs, and all that they are told."""

    def __init__(self, socket: ClientConnection, email: str) -> None:
        self.email = email
        self.told: list[str] = []
        self.seeds: dict[str, int] = {}
        """The seeds that came, numbered in their order."""
        self._socket = socket

    async def ask(self, method: str, **params: Any) -> Any:
        """The answer; it is noted to the letter."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        await self._socket.send(json.dumps(call))
        text = str(await self._socket.recv())
        self.told.append(text)
        return json.loads(text)

    async def prelogin(self) -> Any:
        """The answer, of which the seed is noted by its number."""
        answer = await self.ask("account.prelogin", email=self.email)
        seed = answer["result"]["clientSaltSeed"]
        assert len(bytes.fromhex(seed)) == 32
        number = self.seeds.setdefault(seed, len(self.seeds))
        self.told[-1] = self.told[-1].replace(seed, f"the seed of number {number}")
        return answer

    async def login(self, password: str = "a wrong password") -> Any:
        return await self.ask(
            "session.login", email=self.email, password=password, deviceId="laptop"
        )

    async def register(self, password: str = "the stranger's password") -> Any:
        credentials = {"password": password, "clientSaltSeed": SEED, "kdf": CLIENTS_KDF}
        return await self.ask("account.register", email=self.email, **credentials)

    async def ask_for_letter(self, method: str) -> Any:
        return await self.ask(method, email=self.email)

    async def use_token(self, method: str) -> Any:
        params = new_credentials("a new password") if method == "account.reset" else {}
        return await self.ask(method, token="ab" * 32, **params)


@pytest.fixture
async def town(serve: Serve) -> AsyncIterator[Town]:
    async with open_town(serve, auth_timeout_s=600) as town:
        await settle(town)
        yield town


@pytest.fixture
async def guarded_town(serve: Serve) -> AsyncIterator[Town]:
    """The same, with all limits."""
    async with open_town(serve, rate_limits="on", auth_timeout_s=600) as town:
        await settle(town)
        yield town


async def settle(town: Town) -> None:
    """Has somebody live at the addresses."""
    client = await town.served.open()
    for email in (OWNED, DISABLED, WAITING):
        await client.call(
            "account.register",
            email=email,
            password="what nobody else knows",
            clientSaltSeed=SEED[::-1],
            kdf=CLIENTS_KDF,
        )
        if email != WAITING:
            link = await town.link(email)
            await client.call("account.verify", token=link.token)
    with open_database(town.served.database) as database:
        database.execute("UPDATE accounts SET disabled = 1 WHERE email = ?", (DISABLED,))


async def meet_strangers(served: Served) -> list[Stranger]:
    """Somebody for each kind of address; the server closes their connections at its end."""
    return [Stranger(await open_socket(served.url), email) for email in EVERYBODY]


async def test_each_call_is_answered_alike_for_every_kind_of_address(town: Town) -> None:
    strangers = await meet_strangers(town.served)
    for one in strangers:
        await one.prelogin()
        await one.login()
        await one.ask_for_letter("account.resendVerification")
        await one.ask_for_letter("account.requestReset")
        await one.register()
        await one.prelogin()
        await one.login("the stranger's password")
        await one.login()
        await one.ask_for_letter("account.resendVerification")
        await one.use_token("account.verify")
        await one.use_token("account.reset")

    told = strangers[0].told
    assert [one.told for one in strangers] == [told] * len(EVERYBODY)
    reasons = [json.loads(text).get("error", {}).get("data", {}).get("reason") for text in told]
    assert reasons == [
        None,
        "bad_credentials",
        *[None] * 4,
        "not_verified",
        "bad_credentials",
        None,
        "bad_verification_token",
        "bad_reset_token",
    ]


async def test_no_sequence_of_calls_tells_a_stranger_whether_an_address_has_an_account(
    town: Town,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    passwords = ["the first password", "the second password", "the third password"]
    strangers = await meet_strangers(town.served)
    for step in range(STEPS):
        kind, password = chance.randrange(9), chance.choice(passwords)
        if kind == 0 and chance.random() < 0.5:
            let_registrations_expire(town)
        for one in strangers:
            match kind:
                case 0 | 1:
                    await one.register(password)
                case 2 | 3 | 4:
                    await one.login(password)
                case 5:
                    await one.prelogin()
                case 6:
                    await one.ask_for_letter("account.resendVerification")
                case 7:
                    await one.ask_for_letter("account.requestReset")
                case _:
                    await one.use_token(chance.choice(("account.verify", "account.reset")))
        if kind == 8:
            # Which token was tried is drawn for each.
            for one in strangers:
                one.told.pop()
            continue
        assert len({one.told[-1] for one in strangers}) == 1, f"they differ at step {step}"

    assert any("not_verified" in text for text in strangers[0].told)
    assert any("bad_credentials" in text for text in strangers[0].told)


async def test_limits_are_met_alike_for_every_kind_of_address(guarded_town: Town) -> None:
    strangers = await meet_strangers(guarded_town.served)
    failures, letters = GateLimits().wrong_password_rate.burst, GateLimits().letter_rate.burst
    outcomes = []
    for one in strangers:
        answers = [await one.login() for _ in range(failures + 1)]
        answers += [await one.ask_for_letter("account.requestReset") for _ in range(letters + 2)]
        outcomes.append([answer.get("error", {}).get("code") for answer in answers])

    expected = [401] * failures + [429] + [None] * (letters + 2)
    assert outcomes == [expected] * len(EVERYBODY)


async def test_a_decoy_is_the_same_after_a_restart_and_while_a_registration_waits(
    town: Town, serve: Serve
) -> None:
    async def ask_all(served: Served) -> list[Any]:
        return [await one.prelogin() for one in await meet_strangers(served)]

    before = await ask_all(town.served)
    [nobody, *_] = await meet_strangers(town.served)
    await nobody.register()
    waiting = await ask_all(town.served)
    await town.served.stop()
    again = await serve(verification="open", database_url=f"sqlite:///{town.served.database}")

    assert before == waiting == await ask_all(again)
    assert [answer["result"]["kdf"] for answer in before] == [CLIENTS_KDF] * len(EVERYBODY)
    seeds = [answer["result"]["clientSaltSeed"] for answer in before]
    assert len(set(seeds)) == len(EVERYBODY) - 1, "only the two accounts were given the same one"


async def test_a_decoy_of_another_installation_is_another(town: Town, serve: Serve) -> None:
    other = await serve()
    [here, *_], [there, *_] = [await meet_strangers(one) for one in (town.served, other)]

    assert await here.prelogin() != await there.prelogin()


def let_registrations_expire(town: Town) -> None:
    with open_database(town.served.database) as database:
        database.execute("UPDATE registrations SET expires_at = 1")
