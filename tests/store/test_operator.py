"""What the operator's commands do to a database, and what they leave for its servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, select

from tests.contract.backends import (
    HISTORY_DEPTH,
    KDF,
    SEED,
    START_MS,
    TOKEN_LIFETIME_S,
    Account,
    Login,
    SqlBackend,
    make_password,
    register,
)
from wsschema.errors import AccountDisabled, BadToken
from wsserver.operations import (
    ActivateRegistration,
    FindAllowed,
    FindNewestNotice,
    LoadCredentials,
    LoadNotices,
    LoadSession,
    Operation,
    StartRegistration,
    StartReset,
)
from wsserver.store import operator
from wsserver.store.context import REGISTRATION_LIFETIME_MS, Context
from wsserver.store.errors import NotFound
from wsserver.store.notices import NOTICE_LIFETIME_MS
from wsserver.store.operator import AccountRecord
from wsserver.store.tables import accounts, registrations, resets

T = TypeVar("T")
JOE = "joe@example.com"


@dataclasses.dataclass
class Operator:
    """Commands, each in a transaction of its own, as another process would run them."""

    backend: SqlBackend

    def run(self, command: Callable[..., T], *arguments: Any, **options: Any) -> T:
        with self.backend.engine.begin() as connection:
            return command(connection, *arguments, **options)

    def run_now(self, command: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """The same, for commands that take the time."""
        return self.run(command, *arguments, **options, now_ms=self.backend.clock.now_ms)

    def search(self, part: str = "", after: str = "", limit: int = 100) -> list[AccountRecord]:
        return self.run_now(operator.list_accounts, part=part, after=after, limit=limit)

    def find(self, email: str = JOE) -> AccountRecord:
        return self.run_now(operator.find_account, email)

    def verify(self, email: str = JOE) -> bool:
        context = Context(
            now_ms=self.backend.clock,
            history_depth=HISTORY_DEPTH,
            token_lifetime_ms=TOKEN_LIFETIME_S * 1000,
        )
        return self.run(operator.verify_account, context, email)

    def renew_epochs(self, *, keep_tokens: bool = False) -> list[int]:
        def renew(connection: Connection) -> list[int]:
            return [*operator.renew_epochs(connection, keep_tokens=keep_tokens)]

        return self.run(renew)

    async def notices(self) -> list[tuple[int, str, str | None, bytes | None]]:
        """What a server that starts now reads of them."""
        loaded = await self.backend.perform(LoadNotices(0, 1000))
        return [(it.account_id, it.reason, it.device_id, it.kept_token_hash) for it in loaded]


@pytest.fixture
def hand(backend: SqlBackend) -> Operator:
    return Operator(backend)


@pytest.fixture
async def account(backend: SqlBackend) -> Account:
    return await register(backend, JOE)


@pytest.fixture
async def phone(account: Account) -> Login:
    return await account.log_in("phone", device_name="Joe's phone")


async def start_registration(backend: SqlBackend, email: str) -> None:
    password = make_password("waiting")
    await backend.perform(StartRegistration(email, password, SEED, KDF))


# Looking.


async def test_an_account_is_told_with_its_state_and_its_size(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    await account.log_in("laptop")
    await phone.push_many([1, 2, 3])

    record = AccountRecord(account.account_id, JOE, "active", 3, 2, START_MS, None)
    assert hand.find() == record
    assert hand.search() == [record]
    assert JOE not in repr(record)


async def test_a_registration_that_waits_is_told_until_it_expires(
    backend: SqlBackend, hand: Operator
) -> None:
    await start_registration(backend, JOE)

    expires_at_ms = START_MS + REGISTRATION_LIFETIME_MS
    record = AccountRecord(None, JOE, "unverified", 0, 0, None, expires_at_ms)
    assert hand.find() == record
    assert hand.search() == [record]

    backend.clock.now_ms = expires_at_ms
    assert hand.search() == []
    with pytest.raises(NotFound, match=f"no account has the address {JOE}"):
        hand.find()


async def test_a_registration_of_a_taken_address_is_not_told(
    backend: SqlBackend, hand: Operator, account: Account
) -> None:
    await start_registration(backend, JOE)
    assert [record.state for record in hand.search()] == ["active"]


async def test_an_account_that_was_not_verified_is_told_so(
    backend: SqlBackend, hand: Operator
) -> None:
    await register(backend, JOE, verified=False)
    assert hand.find().state == "unverified"


async def test_accounts_are_listed_by_address_page_by_page(
    backend: SqlBackend, hand: Operator
) -> None:
    emails = [f"user{number}@example.com" for number in range(7)]
    for email in reversed(emails[::2]):
        await register(backend, email)
    for email in emails[1::2]:
        await start_registration(backend, email)

    pages: list[list[str]] = []
    after = ""
    while page := [record.email for record in hand.search(after=after, limit=3)]:
        pages.append(page)
        after = page[-1]

    assert pages == [emails[:3], emails[3:6], emails[6:]]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("ann", ["ann@example.com"]),
        ("@example", ["a_n@example.com", "ann@example.com"]),
        ("a_n", ["a_n@example.com"]),
        ("%", []),
        ("/", []),
    ],
)
async def test_accounts_are_found_by_part_of_their_address(
    backend: SqlBackend, hand: Operator, part: str, found: list[str]
) -> None:
    for email in ("ann@example.com", "a_n@example.com", "joe@elsewhere.example"):
        await register(backend, email)
    assert [record.email for record in hand.search(part)] == found


async def test_devices_are_told_with_whether_they_are_logged_in(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    backend.clock.now_ms += 1000
    laptop = await account.log_in("laptop")
    await laptop.push(1)
    await backend.perform(phone.ending())

    first, second = hand.run(operator.list_devices, account.account_id)

    assert (first.record.device_id, first.record.name) == ("phone", "Joe's phone")
    assert (first.logged_in, second.logged_in) == (False, True)
    assert (first.record.created_at_ms, first.record.last_seen_at_ms) == (START_MS, START_MS + 1000)
    assert (second.record.device_id, second.record.applied_sequence) == ("laptop", 1)


# Verifying.


async def test_an_operator_verifies_what_the_mail_could_not(
    backend: SqlBackend, hand: Operator
) -> None:
    await start_registration(backend, JOE)

    assert hand.verify()

    record = hand.find()
    assert (record.state, record.expires_at_ms) == ("active", None)
    credentials = await backend.perform(LoadCredentials(JOE))
    assert credentials is not None
    assert credentials.password == make_password("waiting")
    assert not hand.verify()


async def test_the_link_of_a_registration_that_was_verified_leads_nowhere(
    backend: SqlBackend, hand: Operator
) -> None:
    await start_registration(backend, JOE)
    with backend.engine.begin() as connection:
        token_hash = connection.execute(select(registrations.c.token_hash)).scalar_one()
    hand.verify()
    (answer,) = await backend.perform_all([ActivateRegistration(token_hash)])
    assert type(answer).__name__ == "BadVerificationToken"


async def test_an_account_that_was_not_verified_can_be(backend: SqlBackend, hand: Operator) -> None:
    await register(backend, JOE, verified=False)
    assert hand.verify()
    assert hand.find().state == "active"
    assert not hand.verify()


# Disabling.


async def test_a_disabled_account_is_kept_out_until_it_is_enabled(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    assert hand.run_now(operator.disable_account, JOE)

    assert hand.find().state == "disabled"
    assert await hand.notices() == [(account.account_id, "account_disabled", None, None)]
    refused: list[Operation[Any]] = [
        account.opening(),
        LoadSession(phone.token_hash),
        phone.pushing(1),
    ]
    for operation in refused:
        with pytest.raises(AccountDisabled):
            await backend.perform(operation)

    assert hand.run_now(operator.enable_account, JOE)
    assert hand.find().state == "active"
    await phone.push(1)


async def test_disabling_twice_tells_the_servers_twice(hand: Operator, account: Account) -> None:
    assert hand.run_now(operator.disable_account, JOE)
    assert not hand.run_now(operator.disable_account, JOE)
    assert len(await hand.notices()) == 2


async def test_enabling_takes_back_what_no_server_has_read(
    backend: SqlBackend, hand: Operator, account: Account
) -> None:
    ann = await register(backend, "ann@example.com")
    hand.run_now(operator.disable_account, "ann@example.com")
    hand.run_now(operator.disable_account, JOE)

    hand.run_now(operator.enable_account, JOE)

    assert await hand.notices() == [(ann.account_id, "account_disabled", None, None)]
    assert not hand.run_now(operator.enable_account, JOE)


async def test_a_notice_that_was_taken_back_leaves_its_id_to_no_other(
    backend: SqlBackend, hand: Operator, account: Account
) -> None:
    hand.run_now(operator.disable_account, JOE)
    read = await backend.perform(FindNewestNotice())
    hand.run_now(operator.enable_account, JOE)

    hand.run_now(operator.disable_account, JOE)

    assert await backend.perform(FindNewestNotice()) > read


# Revoking.


async def test_all_devices_are_logged_out_and_stay_on_the_list(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    laptop = await account.log_in("laptop")
    gone = await account.log_in("gone")
    await backend.perform(gone.ending())

    ended = hand.run_now(operator.revoke_devices, JOE, device_id=None, forget=False)

    assert ended == ["laptop", "phone"]
    for login in (phone, laptop):
        with pytest.raises(BadToken):
            await backend.perform(login.pushing(1))
    assert sorted(await account.device_ids()) == ["gone", "laptop", "phone"]
    assert await hand.notices() == [
        (account.account_id, "device_revoked", "laptop", None),
        (account.account_id, "device_revoked", "phone", None),
    ]


async def test_one_device_is_logged_out_alone(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    laptop = await account.log_in("laptop")
    ann = await (await register(backend, "ann@example.com")).log_in("phone")

    assert hand.run_now(operator.revoke_devices, JOE, device_id="phone", forget=False) == ["phone"]

    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(1))
    await laptop.push(1)
    await ann.push(1)


async def test_a_device_that_logs_in_again_at_once_is_not_meant(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    hand.run_now(operator.revoke_devices, JOE, device_id=None, forget=False)
    again = await account.log_in("phone")
    assert await hand.notices() == [
        (account.account_id, "device_revoked", "phone", again.token_hash)
    ]


async def test_forgotten_devices_leave_the_list(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    gone = await account.log_in("gone")
    await backend.perform(gone.ending())
    await account.log_in("laptop")

    assert hand.run_now(operator.revoke_devices, JOE, device_id="gone", forget=True) == ["gone"]
    assert await hand.notices() == []
    forgotten = hand.run_now(operator.revoke_devices, JOE, device_id=None, forget=True)

    assert forgotten == ["laptop", "phone"]
    assert await account.device_ids() == []
    assert [device_id for _, _, device_id, _ in await hand.notices()] == ["laptop", "phone"]


async def test_a_device_that_the_account_does_not_have_is_told(
    hand: Operator, phone: Login
) -> None:
    with pytest.raises(NotFound, match=f"{JOE} has no device tablet"):
        hand.run_now(operator.revoke_devices, JOE, device_id="tablet", forget=False)


# Deleting.


async def test_a_deleted_account_is_gone_with_all_that_was_its(
    backend: SqlBackend, hand: Operator, account: Account, phone: Login
) -> None:
    await phone.push(1)
    await start_registration(backend, JOE)
    await backend.perform(StartReset(JOE))

    hand.run_now(operator.delete_account, JOE)

    assert hand.search() == []
    assert await account.credentials() is None
    assert await account.wallet() is None
    assert await account.device_ids() == []
    assert await hand.notices() == [(account.account_id, "account_deleted", None, None)]


async def test_a_registration_that_waits_can_be_deleted(
    backend: SqlBackend, hand: Operator
) -> None:
    await start_registration(backend, JOE)
    hand.run_now(operator.delete_account, JOE)
    assert hand.search() == []
    assert await hand.notices() == []


# What all of them have.


COMMANDS: list[Callable[[Operator], Any]] = [
    lambda hand: hand.verify(),
    lambda hand: hand.run_now(operator.disable_account, JOE),
    lambda hand: hand.run_now(operator.enable_account, JOE),
    lambda hand: hand.run_now(operator.revoke_devices, JOE, device_id=None, forget=False),
    lambda hand: hand.run_now(operator.delete_account, JOE),
]


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_address_without_an_account_is_told(
    hand: Operator, command: Callable[[Operator], Any]
) -> None:
    with pytest.raises(NotFound, match=f"no account has the address {JOE}"):
        command(hand)


@pytest.mark.parametrize("command", COMMANDS[1:4])
async def test_what_needs_an_account_says_that_a_registration_is_none_yet(
    backend: SqlBackend, hand: Operator, command: Callable[[Operator], Any]
) -> None:
    await start_registration(backend, JOE)
    with pytest.raises(NotFound, match="waits to be verified"):
        command(hand)


async def test_notices_are_let_go_of_after_an_hour(
    backend: SqlBackend, hand: Operator, account: Account
) -> None:
    hand.run_now(operator.disable_account, JOE)
    backend.clock.now_ms += NOTICE_LIFETIME_MS
    hand.run_now(operator.disable_account, JOE)
    assert len(await hand.notices()) == 2

    backend.clock.now_ms += 1
    hand.run_now(operator.disable_account, JOE)
    assert len(await hand.notices()) == 2


# The allowlist.


async def test_addresses_are_allowed_until_they_are_removed(
    backend: SqlBackend, hand: Operator
) -> None:
    ann = "ann@example.com"
    assert hand.run_now(operator.allow, [JOE, ann, JOE]) == [JOE, ann]
    backend.clock.now_ms += 1
    assert hand.run_now(operator.allow, [ann, "eve@example.com"]) == ["eve@example.com"]

    assert hand.run(operator.list_allowed) == [
        (ann, START_MS),
        ("eve@example.com", START_MS + 1),
        (JOE, START_MS),
    ]
    assert await backend.perform(FindAllowed(ann))

    hand.run(operator.disallow, [ann, JOE])
    assert not await backend.perform(FindAllowed(ann))
    assert [email for email, _ in hand.run(operator.list_allowed)] == ["eve@example.com"]


async def test_addresses_are_removed_all_or_none(hand: Operator) -> None:
    hand.run_now(operator.allow, [JOE])
    with pytest.raises(NotFound, match=r"not on the allowlist: ann@example\.com"):
        hand.run(operator.disallow, [JOE, "ann@example.com"])
    assert [email for email, _ in hand.run(operator.list_allowed)] == [JOE]


# Epochs.


def read_epochs(backend: SqlBackend) -> dict[str, str]:
    with backend.engine.begin() as connection:
        rows = connection.execute(select(accounts.c.email, accounts.c.epoch))
        return {row.email: row.epoch for row in rows}


async def test_a_renewal_gives_every_account_an_epoch_of_its_own(
    backend: SqlBackend, hand: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "EPOCH_CHUNK", 3)
    for number in range(7):
        await register(backend, f"user{number}@example.com")
    before = read_epochs(backend)

    assert hand.run(operator.count_accounts) == 7
    assert hand.renew_epochs() == [3, 3, 1]

    after = read_epochs(backend)
    assert after.keys() == before.keys()
    assert len({*after.values(), *before.values()}) == 14


async def test_a_renewal_ends_every_token_unless_they_are_to_be_kept(
    backend: SqlBackend, hand: Operator, phone: Login
) -> None:
    def count_resets(connection: Connection) -> int:
        return len(connection.execute(select(resets)).all())

    await phone.push(1)
    await backend.perform(StartReset(JOE))

    assert hand.renew_epochs(keep_tokens=True) == [1]
    await phone.push(2)
    assert hand.run(count_resets) == 1

    assert hand.renew_epochs() == [1]
    with pytest.raises(BadToken):
        await backend.perform(phone.pushing(3))
    assert await phone.account.device_ids() == ["phone"]
    assert hand.run(count_resets) == 0
    assert hand.find().sequence == 2
