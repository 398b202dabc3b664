"""`Client` at a prompt: what it prints, merges, refuses and says when something is wrong."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.client.fake_server import NOW, PATIENCE_S, FakeServer, Peer
from wsclient import crypto, interactive
from wsclient.errors import (
    AccountExists,
    AnswerLost,
    BadCredentials,
    CannotConnect,
    NotAuthenticated,
    NoWallet,
    SessionEnded,
    StateRefused,
    Unavailable,
    WeakKdf,
)
from wsclient.interactive import Client
from wsschema.errors import Conflict
from wsschema.messages import (
    Acknowledge,
    ChangePassword,
    DeviceList,
    Empty,
    GetWallet,
    Kdf,
    KeyDerivation,
    ListDevices,
    Prelogin,
    PushWallet,
    Register,
    Registered,
    SessionRevoked,
    WalletState,
    WalletUpdated,
)

Printed = Callable[[], list[str]]

CHEAP_KDF = Kdf.scrypt(2**14)
SEED = "a" * 64
KEYS = crypto.derive_keys("joe@example.com", "root password", SEED, CHEAP_KDF)
emails = (f"user{number}@interactive.example" for number in itertools.count())


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """The lines printed since it was last asked for, with tokens and device ids replaced."""

    def take() -> list[str]:
        text = capsys.readouterr().out
        text = re.sub(r"\b[0-9a-f]{64}\b", "TOKEN", text)
        return re.sub(r"device [0-9a-f]{8}\b", "device ID", text).splitlines()

    return take


@pytest.fixture
def clients(server_url: str) -> Iterator[Callable[..., Client]]:
    """Makes clients of a real server; closes them."""
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(server_url, minimum_kdf=CHEAP_KDF, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def pair(clients: Callable[..., Client], printed: Printed) -> tuple[Client, Client]:
    """Two clients of one new account, logged in, with the wallet that the first pushed."""
    first, second = clients(device_name="laptop"), clients(device_name="phone")
    email = next(emails)
    first.set_account(email, "root password")
    second.set_account(email, "root password")
    first.register()
    first.get_auth_token()
    second.get_auth_token()
    first.new_wallet_state()
    first.update_wallet()
    second.get_wallet()
    printed()
    return first, second


def wait_for(condition: Callable[[], object]) -> None:
    """Returns once the condition holds, however the threads take turns."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.005)


class Hearing:
    """What a client prints from the background, as it comes."""

    def __init__(self, printed: Printed) -> None:
        self._printed = printed
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        def heard() -> bool:
            self.lines += self._printed()
            return line in self.lines

        wait_for(heard)


# Against a real server.


def test_a_new_account_is_registered_once(clients: Callable[..., Client], printed: Printed) -> None:
    client = clients()
    client.set_account(next(emails), "root password")
    client.register()
    assert printed() == ["Registered"]
    with pytest.raises(AccountExists):
        client.register()


def test_a_wrong_password_is_said_to_be_wrong(clients: Callable[..., Client]) -> None:
    client = clients()
    email = next(emails)
    client.set_account(email, "root password")
    client.register()
    client.set_account(email, "another")
    with pytest.raises(BadCredentials, match="the email or the password is wrong"):
        client.get_auth_token()
    with pytest.raises(NotAuthenticated, match=r"log in first: get_auth_token\(\)"):
        client.get_wallet()


def test_changes_on_both_sides_are_merged(pair: tuple[Client, Client], printed: Printed) -> None:
    first, second = pair
    first.change_encrypted_wallet("1")
    first.update_wallet()
    second.change_encrypted_wallet("2")
    second.get_wallet()
    assert second.cur_encrypted_wallet() == "-:1:2"
    second.change_encrypted_wallet("3")
    second.update_wallet()
    first.get_wallet()
    assert first.cur_encrypted_wallet() == second.cur_encrypted_wallet() == "-:1:2:3"
    assert printed()[-2:] == [
        "Got latest walletState:",
        "WalletState(sequence=3, encrypted_wallet='-:1:2:3')",
    ]


def test_a_conflict_is_merged_and_said(pair: tuple[Client, Client], printed: Printed) -> None:
    first, second = pair
    first.change_encrypted_wallet("1")
    first.update_wallet()
    printed()
    second.change_encrypted_wallet("2")
    second.update_wallet()
    assert printed() == [
        "Wallet state out of date. Getting updated wallet state. Try posting again after this.",
        "Got new walletState:",
        "WalletState(sequence=2, encrypted_wallet='-:1')",
    ]
    assert second.cur_encrypted_wallet() == "-:1:2"


def test_a_wallet_begun_twice_is_merged_without_a_base(pair: tuple[Client, Client]) -> None:
    first, second = pair
    first.change_encrypted_wallet("1")
    first.update_wallet()
    second.new_wallet_state()
    second.change_encrypted_wallet("2")
    second.update_wallet()
    second.update_wallet()
    first.get_wallet()
    assert first.cur_encrypted_wallet() == "-:1:2"


def test_listening_prints_what_is_heard_as_it_comes(
    pair: tuple[Client, Client], clients: Callable[..., Client], printed: Printed
) -> None:
    first, second = pair
    hearing = Hearing(printed)
    second.listen()
    first.update_wallet()
    hearing.wait_for("Heard: device ID pushed sequence 2")
    first.logout()
    hearing.wait_for("Heard: device ID (laptop) is offline")
    first.get_auth_token()
    hearing.wait_for("Heard: device ID (laptop) is online")
    second.stop_listening()
    first.update_wallet()
    wait_for(lambda: "sequence 3 on the server" in repr(second))
    assert not any(line.startswith("Heard") for line in printed())


def test_what_is_heard_is_known_without_listening(pair: tuple[Client, Client]) -> None:
    first, second = pair
    first.update_wallet()
    wait_for(lambda: repr(second).endswith("wallet at sequence 1, sequence 2 on the server>"))


def test_devices_and_history_are_printed(pair: tuple[Client, Client], printed: Printed) -> None:
    first, second = pair
    second.close()

    def second_is_offline() -> bool:
        first.devices()
        return any("offline" in line for line in printed())

    wait_for(second_is_offline)
    first.devices()
    assert printed() == [
        "device ID (laptop) is online and has sequence 1, this one",
        "device ID (phone) is offline and has sequence 1",
    ]
    first.history()
    (line,) = printed()
    assert re.fullmatch(r"sequence 1, 1 bytes, by device ID, [\d-]{10} [\d:]{8} UTC", line)


def test_a_password_change_takes_the_wallet_along(
    pair: tuple[Client, Client], printed: Printed
) -> None:
    first, second = pair
    second.change_encrypted_wallet("2")
    second.update_wallet()
    first.change_encrypted_wallet("1")
    wait_for(lambda: "sequence 2 on the server" in repr(first))
    printed()

    first.change_password("another root password")

    assert printed() == ["Changed password", "Got auth token: TOKEN"]
    with pytest.raises(SessionEnded, match="the password of the account was changed"):
        second.get_wallet()
    with pytest.raises(BadCredentials):
        second.get_auth_token()
    second.set_account(first._email, "another root password")
    second.get_auth_token()
    second.get_wallet()
    assert second.cur_encrypted_wallet() == first.cur_encrypted_wallet() == "-:2:1"
    first.update_wallet()
    assert printed()[-1] == "WalletState(sequence=4, encrypted_wallet='-:2:1')"


def test_an_account_without_a_wallet_changes_its_password_too(
    clients: Callable[..., Client], printed: Printed
) -> None:
    client = clients()
    client.set_account(next(emails), "root password")
    client.register()
    client.get_auth_token()
    client.new_wallet_state()
    client.change_password("another")
    client.update_wallet()
    assert printed()[-1] == "WalletState(sequence=1, encrypted_wallet='-')"


def test_after_logging_out_one_logs_in_again_and_goes_on(
    pair: tuple[Client, Client], printed: Printed
) -> None:
    first, _ = pair
    first.logout()
    with pytest.raises(NotAuthenticated):
        first.update_wallet()
    first.get_auth_token()
    first.update_wallet()
    assert printed()[-1] == "WalletState(sequence=2, encrypted_wallet='-')"


def test_a_deleted_account_is_gone_and_may_be_made_anew(
    pair: tuple[Client, Client], printed: Printed
) -> None:
    first, second = pair
    first.change_encrypted_wallet("1")
    first.delete_account()
    assert printed() == ["Deleted account"]
    wait_for(lambda: "not logged in" in repr(second))
    with pytest.raises(SessionEnded, match="the account was deleted"):
        second.get_wallet()
    with pytest.raises(BadCredentials):
        first.get_auth_token()
    first.register()
    first.get_auth_token()
    first.update_wallet()
    assert printed()[-1] == "WalletState(sequence=1, encrypted_wallet='-:1')"


def test_another_login_of_the_same_device_ends_the_first(
    pair: tuple[Client, Client], clients: Callable[..., Client]
) -> None:
    first, _ = pair
    twin = clients()
    twin.device_id = first.device_id
    twin.set_account(first._email, "root password")
    twin.get_auth_token()
    wait_for(lambda: "not logged in" in repr(first))
    with pytest.raises(SessionEnded, match="another login with this device's id replaced it"):
        first.get_wallet()


def test_an_account_without_a_wallet_says_how_to_make_one(
    clients: Callable[..., Client],
) -> None:
    client = clients()
    client.set_account(next(emails), "root password")
    client.register()
    client.get_auth_token()
    with pytest.raises(NoWallet, match=r"no wallet yet: new_wallet_state\(\), then"):
        client.get_wallet()


def test_a_client_is_a_context_and_can_be_used_after_it(
    pair: tuple[Client, Client], printed: Printed
) -> None:
    first, _ = pair
    with first:
        first.update_wallet()
    assert "not logged in" in repr(first)
    first.get_auth_token()
    first.update_wallet()
    assert printed()[-1] == "WalletState(sequence=3, encrypted_wallet='-')"


def test_a_program_that_forgets_to_close_ends_all_the_same(server_url: str) -> None:
    program = (
        "from wsclient import Client\n"
        "client = Client()\n"
        f"client.set_account({next(emails)!r}, 'root password')\n"
        "client.register()\n"
        "client.get_auth_token()\n"
        "client.listen()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={"WSSERVER_URL": server_url, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("Registered\nGot auth token: ")


# Without a server, or without what is needed first.


def test_a_server_that_is_not_there_is_named_with_how_to_start_one() -> None:
    client = Client("ws://127.0.0.1:1/v1")
    client.set_account("joe@example.com", "root password")
    with client, pytest.raises(CannotConnect) as failed:
        client.register()
    shown = traceback.format_exception(failed.value)
    assert "cannot connect to ws://127.0.0.1:1/v1: nothing listens there" in shown[-2]
    assert shown[-1].startswith("Start a server with `make run`")
    assert len(traceback.extract_tb(failed.tb)) <= 3


def test_the_server_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSSERVER_URL", raising=False)
    assert Client().url == "ws://127.0.0.1:8090/v1"
    monkeypatch.setenv("WSSERVER_URL", "ws://127.0.0.1:9/v1")
    assert Client().url == "ws://127.0.0.1:9/v1"
    assert Client("ws://127.0.0.1:10/v1").url == "ws://127.0.0.1:10/v1"


def test_what_has_to_come_first_is_said() -> None:
    client = Client("ws://127.0.0.1:1/v1")
    for method in (client.register, client.get_auth_token):
        with pytest.raises(NotAuthenticated, match=r"set_account\(email, password\)"):
            method()
    for method in (client.get_wallet, client.update_wallet, client.devices, client.logout):
        with pytest.raises(NotAuthenticated, match=r"log in first: get_auth_token\(\)"):
            method()
    with pytest.raises(NoWallet, match=r"new_wallet_state\(\) or get_wallet\(\)"):
        client.cur_encrypted_wallet()


def test_every_client_is_a_device_of_its_own() -> None:
    assert Client().device_id != Client().device_id


def test_repr_hides_who_and_what() -> None:
    client = Client("ws://127.0.0.1:1/v1")
    client.set_account("joe@example.com", "root password")
    client.new_wallet_state()
    client.change_encrypted_wallet("coins")
    assert repr(client) == (
        f"<Client of ws://127.0.0.1:1/v1, device {client.device_id[:8]}: not logged in, "
        "wallet not on the server yet>"
    )


def test_every_method_that_one_may_call_has_its_help() -> None:
    for name, member in vars(Client).items():
        if not name.startswith("_") and callable(member):
            assert member.__doc__, name


def test_what_is_heard_at_a_prompt_is_printed_above_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    interactive._print_aside("Heard: something")
    assert capsys.readouterr().out == "\r\x1b[KHeard: something\n>>> "


# Against a scripted server.


def make_state(sequence: int, wallet: str = "-") -> WalletState:
    hmac = crypto.compute_hmac(KEYS.hmac_key, sequence, wallet)
    return WalletState(sequence, wallet, hmac, "phone", NOW)


@asynccontextmanager
async def doing(method: Callable[[], None]) -> AsyncIterator[asyncio.Task[None]]:
    """The client's blocking method, on a thread, while the test plays the server."""
    task = asyncio.create_task(asyncio.to_thread(method))
    try:
        yield task
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])
    finally:
        if not task.done():
            task.cancel()


async def let_log_in(peer: Peer, latest: WalletState | None = None, **options: Any) -> None:
    request, _ = await peer.expect(Prelogin)
    await peer.answer(request, KeyDerivation(SEED, CHEAP_KDF))
    await peer.let_log_in(latest, **options)
    request, _ = await peer.expect(ListDevices)
    await peer.answer(request, DeviceList(()))


async def let_get(peer: Peer, state: WalletState) -> None:
    request, _ = await peer.expect(GetWallet)
    await peer.answer(request, state)
    await let_acknowledge(peer)


async def let_acknowledge(peer: Peer) -> None:
    request, _ = await peer.expect(Acknowledge)
    await peer.answer(request, Empty())


async def let_push(peer: Peer) -> PushWallet:
    request, push = await peer.expect(PushWallet)
    await peer.answer(request, make_state(push.sequence, push.encrypted_wallet))
    return push


@asynccontextmanager
async def scripted(
    latest: WalletState | None = None,
) -> AsyncIterator[tuple[Client, Peer, FakeServer]]:
    """A client that is logged in to a scripted server, and its peer there."""
    async with FakeServer() as server:
        client = Client(server.url, minimum_kdf=CHEAP_KDF)
        client.set_account("joe@example.com", "root password")
        try:
            async with doing(client.get_auth_token) as task:
                peer = await server.accept()
                await let_log_in(peer, latest)
            task.result()
            yield client, peer, server
        finally:
            await asyncio.to_thread(client.close)


FORGED = WalletState(3, "theirs", "00" * 32, "phone", NOW)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (FORGED, "refused state 3 from the server: its HMAC is wrong"),
        (make_state(1), "refused state 1 from the server: sequence 2 was there already"),
        (make_state(2, "other"), "refused state 2 from the server: this device knows another"),
    ],
)
async def test_a_state_that_cannot_be_is_refused_and_changes_nothing(
    shown: WalletState, sentence: str
) -> None:
    async with scripted(make_state(2, "-:1")) as (client, peer, _):
        async with doing(client.get_wallet):
            await let_get(peer, make_state(2, "-:1"))
        client.change_encrypted_wallet("mine")
        async with doing(client.get_wallet) as task:
            request, _ = await peer.expect(GetWallet)
            await peer.answer(request, shown)
        assert isinstance(task.exception(), StateRefused)
        assert str(task.exception()).startswith(sentence)
        assert client.cur_encrypted_wallet() == "-:1:mine"
        with pytest.raises(StateRefused):
            client.update_wallet()


async def test_a_later_login_does_not_let_the_refused_state_in() -> None:
    async with scripted(make_state(2)) as (client, _, server):
        async with doing(client.get_auth_token) as task:
            peer = await server.accept()
            request, _ = await peer.expect(Prelogin)
            await peer.answer(request, KeyDerivation(SEED, CHEAP_KDF))
            await peer.let_log_in(make_state(1))
        assert isinstance(task.exception(), StateRefused)


async def test_weaker_key_derivation_than_before_is_refused_before_a_password_is_sent() -> None:
    stronger = Kdf.scrypt(2**15)
    async with FakeServer() as server:
        client = Client(server.url, minimum_kdf=CHEAP_KDF)
        client.set_account("joe@example.com", "root password")
        for kdf in (stronger, CHEAP_KDF):
            async with doing(client.get_auth_token) as task:
                peer = await server.accept()
                request, _ = await peer.expect(Prelogin)
                await peer.answer(request, KeyDerivation(SEED, kdf))
                if kdf is stronger:
                    await peer.let_log_in()
                    request, _ = await peer.expect(ListDevices)
                    await peer.answer(request, DeviceList(()))
        assert isinstance(task.exception(), WeakKdf)
        assert [call.method for call in peer.calls] == ["server.info", "account.prelogin"]
        await asyncio.to_thread(client.close)


async def test_registering_uses_the_default_key_derivation() -> None:
    async with FakeServer() as server:
        client = Client(server.url)
        client.set_account("joe@example.com", "root password")
        async with doing(client.register) as task:
            peer = await server.accept()
            request, register = await peer.expect(Register)
            await peer.answer(request, Registered(verified=False))
        task.result()
        assert register.kdf == Kdf.scrypt(2**17)
        assert "root password" not in str(peer.calls)
        await asyncio.to_thread(client.close)


async def test_a_push_that_may_have_landed_is_settled_before_the_next() -> None:
    async with scripted() as (client, peer, _):
        client.new_wallet_state()
        client.change_encrypted_wallet("1")
        async with doing(client.update_wallet) as task:
            request, first = await peer.expect(PushWallet)
            await peer.refuse(request, Unavailable())
        assert isinstance(task.exception(), Unavailable)
        client.change_encrypted_wallet("2")
        async with doing(client.update_wallet) as task:
            request, again = await peer.expect(PushWallet)
            assert again == first
            await peer.refuse(request, Conflict(wallet=make_state(2, "-:1:theirs"), landed=True))
            request, _ = await peer.expect(PushWallet)
            await peer.refuse(request, Conflict(wallet=make_state(2, "-:1:theirs")))
            await let_acknowledge(peer)
        task.result()
        assert client.cur_encrypted_wallet() == "-:1:theirs:2"


async def test_a_push_that_did_not_land_is_no_base() -> None:
    async with scripted() as (client, peer, _):
        client.new_wallet_state()
        client.change_encrypted_wallet("1")
        async with doing(client.update_wallet):
            request, _ = await peer.expect(PushWallet)
            await peer.refuse(request, Unavailable())
        async with doing(client.get_wallet) as task:
            request, _ = await peer.expect(PushWallet)
            await peer.refuse(request, Conflict(wallet=make_state(1, "-:theirs")))
            await let_get(peer, make_state(1, "-:theirs"))
        task.result()
        assert client.cur_encrypted_wallet() == "-:theirs:1"


async def test_a_push_that_landed_and_was_followed_is_not_merged_twice(
    printed: Printed,
) -> None:
    async with scripted() as (client, peer, server):
        client.new_wallet_state()
        client.change_encrypted_wallet("1")
        async with doing(client.update_wallet) as task:
            await peer.expect(PushWallet)
            peer.cut()
            again = await server.accept()
            await again.let_resume(make_state(2, "-:1:theirs"), bring_wallet=True)
            request, _ = await again.expect(PushWallet)
            await again.refuse(request, Conflict(wallet=make_state(2, "-:1:theirs"), landed=True))
            await let_acknowledge(again)
        task.result()
        assert client.cur_encrypted_wallet() == "-:1:theirs"
        assert printed()[-3:] == [
            "Successfully updated wallet state on server; another device has followed",
            "Got new walletState:",
            "WalletState(sequence=2, encrypted_wallet='-:1:theirs')",
        ]


async def test_after_a_restore_the_merge_has_no_base_and_loses_nothing() -> None:
    async with scripted(make_state(5, "-:1:2")) as (client, peer, server):
        async with doing(client.get_wallet):
            await let_get(peer, make_state(5, "-:1:2"))
        client.change_encrypted_wallet("mine")
        await peer.close(1012)
        again = await server.accept()
        await again.let_resume(make_state(3, "-:1"), epoch="e2", bring_wallet=True)
        async with asyncio.timeout(10):
            while client._witness.epoch != "e2":  # it may not have read the answer yet
                await asyncio.sleep(0.01)
        async with doing(client.update_wallet) as task:
            request, push = await again.expect(PushWallet)
            assert push.sequence == 1
            await again.refuse(request, Conflict(wallet=make_state(3, "-:1")))
            await let_acknowledge(again)
        task.result()
        assert client.cur_encrypted_wallet() == "-:1:2:mine"
        async with doing(client.update_wallet) as task:
            assert (await let_push(again)).sequence == 4
        task.result()


async def test_a_push_is_not_sent_again_to_a_server_that_was_reset_meanwhile(
    printed: Printed,
) -> None:
    async with scripted(make_state(5)) as (client, peer, server):
        async with doing(client.get_wallet):
            await let_get(peer, make_state(5))
        async with doing(client.update_wallet) as task:
            await peer.expect(PushWallet)
            await peer.close(1012)
            again = await server.accept()
            await again.let_resume(epoch="e2")
            with pytest.raises(AnswerLost):
                await task
        async with doing(client.update_wallet) as task:
            assert (await let_push(again)).sequence == 1
        task.result()


async def test_a_password_change_that_came_too_late_merges_and_changes_nothing(
    printed: Printed,
) -> None:
    async with scripted(make_state(1)) as (client, peer, _):
        async with doing(client.get_wallet):
            await let_get(peer, make_state(1))
        client.change_encrypted_wallet("mine")
        async with doing(lambda: client.change_password("another")) as task:
            request, change = await peer.expect(ChangePassword)
            assert change.wallet is not None
            assert change.wallet.encrypted_wallet == "-:mine"
            await peer.refuse(request, Conflict(wallet=make_state(2, "-:theirs")))
            await let_acknowledge(peer)
        task.result()
        assert printed()[-3].startswith("Wallet state out of date.")
        assert client.cur_encrypted_wallet() == "-:theirs:mine"
        async with doing(client.update_wallet) as task:
            await let_push(peer)
        task.result()


async def test_a_lost_connection_is_told_to_who_listens(printed: Printed) -> None:
    async with scripted(make_state(1)) as (client, peer, server):
        hearing = Hearing(printed)
        client.listen()
        peer.cut()
        again = await server.accept()
        await again.let_resume(make_state(1))
        await asyncio.to_thread(hearing.wait_for, "Heard: connected again")
        await again.notify(WalletUpdated(2, make_state(2).hmac, "0123456789", NOW))
        await asyncio.to_thread(hearing.wait_for, "Heard: device ID pushed sequence 2")
        await again.notify(SessionRevoked("expired"))
        await again.close(4401)
        await asyncio.to_thread(
            hearing.wait_for,
            "Heard: the session has ended: its token expired. "
            "get_auth_token() begins a new session.",
        )
