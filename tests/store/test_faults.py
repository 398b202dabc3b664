"""What fails: operations, transactions, the database; and that service comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.contract.backends import (
    Login,
    SqlBackend,
    creating,
    make_password,
    register,
)
from tests.store.conftest import Disk, OpenSqlite
from wsschema.errors import InternalError, Unavailable
from wsschema.messages import SealedWallet
from wsserver.operations import (
    LoadCredentials,
    LoadWallet,
    Operation,
    PasswordHash,
    ProbeWrite,
)

SECRET = "5ec2e7" * 10


class Unheard(Operation[None]):
    """An operation that no store knows."""

    writes = True


def bad_account(email: str = "bad@example.com") -> Any:
    """A registration that the database's constraints refuse."""
    return creating(email, client_salt_seed=SECRET)


async def test_one_bad_operation_does_not_sink_its_batch(phone: Login) -> None:
    operations: list[Any] = [
        phone.pushing(1),
        bad_account(),
        phone.pushing(2),
        Unheard(),
        creating("new@example.com"),
        phone.pushing(3),
    ]

    answers = await phone.account.backend.perform_batch(operations)

    assert [answer.state.sequence for answer in answers[::2][:2]] == [1, 2]
    assert isinstance(answers[1], InternalError)
    assert isinstance(answers[3], InternalError)
    assert answers[4] is None
    assert answers[5].fresh


@pytest.mark.parametrize("position", [0, 1, 36, 98, 99])
async def test_a_bad_operation_is_found_wherever_it_stands(phone: Login, position: int) -> None:
    pushes: list[Any] = [phone.pushing(n) for n in range(1, 100)]

    answers = await phone.account.backend.perform_batch(
        [*pushes[:position], bad_account(), *pushes[position:]]
    )

    assert isinstance(answers.pop(position), InternalError)
    assert [answer.state.sequence for answer in answers] == [*range(1, 100)]


async def test_many_bad_operations_cost_nobody_else(phone: Login) -> None:
    operations: list[Any] = []
    for sequence in range(1, 11):
        operations += [bad_account(), phone.pushing(sequence), Unheard()]

    answers = await phone.account.backend.perform_batch(operations)

    assert all(answer.fresh for answer in answers[1::3])
    assert all(isinstance(answer, InternalError) for answer in answers[0::3] + answers[2::3])


async def test_an_internal_error_is_in_the_log_by_its_id_and_without_values(
    phone: Login, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = phone.account.backend
    wrong_type = creating("wrong@example.com", PasswordHash(SECRET, b"s" * 32, 2, 8, 1))  # type: ignore[arg-type]  # the point

    answers = await backend.perform_all([bad_account(), wrong_type, Unheard()])

    shown = caplog.text
    for answer, operation, what in zip(
        answers,
        ("CreateAccount", "CreateAccount", "Unheard"),
        ("IntegrityError (SQLITE_CONSTRAINT_CHECK)", "StatementError", "KeyError"),
        strict=True,
    ):
        assert isinstance(answer, InternalError)
        assert re.search(f"{operation} failed: {re.escape(what)} .*{answer.error_id}", shown)
        assert answer.to_wire()["data"] == {"errorId": answer.error_id}
    assert SECRET not in shown
    assert "example.com" not in shown
    assert "Traceback" in shown


async def test_a_commit_that_a_constraint_refuses_is_answered_so(phone: Login) -> None:
    backend = phone.account.backend
    assert isinstance(backend, SqlBackend)
    with backend.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE late (account_id INTEGER"
                " REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER late_check AFTER INSERT ON accounts BEGIN"
                " INSERT INTO late SELECT 12345 WHERE new.email = 'late@example.com'; END"
            )
        )

    answers = await backend.perform_batch(
        [phone.pushing(1), creating("late@example.com"), phone.pushing(2)]
    )

    assert answers[0].fresh
    assert isinstance(answers[1], InternalError)
    assert answers[2].fresh
    await phone.push(3)


async def test_a_commit_that_fails_is_never_answered_as_a_success(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        disk.fail_commit = OperationalError("COMMIT", None, sqlite3.OperationalError("disk error"))

        answers = await backend.perform_batch([phone.pushing(1), phone.pushing(2)])

        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert await phone.account.wallet() is None
        disk.fail_commit = None
        await phone.push(1)


async def test_memory_that_is_short_is_unavailable_and_no_failure_of_the_operation(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        disk.fail_commit = MemoryError()

        assert isinstance((await backend.perform_all([phone.pushing(1)]))[0], Unavailable)

        disk.fail_commit = None
        await phone.push(1)


async def test_what_a_driver_says_of_a_refused_row_is_not_logged(
    open_store: OpenSqlite, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        disk.fail_commit = IntegrityError("COMMIT", None, sqlite3.IntegrityError(f"key={SECRET}"))

        assert isinstance((await backend.perform_all([phone.pushing(1)]))[0], InternalError)

        assert "PushState failed: IntegrityError" in caplog.text
        assert SECRET not in caplog.text
        disk.fail_commit = None
        await phone.push(1)


# The database is at fault.


async def assert_unavailable(backend: SqlBackend, operation: Operation[Any]) -> None:
    with pytest.raises(Unavailable) as failed:
        await backend.perform(operation)
    assert failed.value.retry_after_ms > 0
    assert failed.value.to_wire()["data"]["retryAfterMs"] == failed.value.retry_after_ms


async def test_a_locked_database_is_unavailable_until_it_is_free(open_store: OpenSqlite) -> None:
    faults: list[str] = []
    async with open_store(busy_timeout_s=0.02, count_fault=faults.append) as backend:
        phone = await (await register(backend)).log_in()
        stored = await phone.push(1)
        assert not faults
        with backend.locked():
            await assert_unavailable(backend, phone.pushing(2))
            # Who only reads waits for nobody.
            assert await phone.account.wallet() == stored
        await phone.push(2)
    assert set(faults) == {"writing lane"}


async def test_an_exclusively_locked_database_is_unavailable_to_writers_alone(
    open_store: OpenSqlite,
) -> None:
    async with open_store(busy_timeout_s=0.02) as backend:
        phone = await (await register(backend)).log_in()
        stored = await phone.push(1)
        other = sqlite3.connect(backend.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        await assert_unavailable(backend, phone.pushing(2))
        assert await phone.account.wallet() == stored

        other.execute("ROLLBACK")
        other.close()
        await phone.push(2)


async def test_a_lock_is_waited_for_once_a_batch(open_store: OpenSqlite) -> None:
    # Halving a batch is for bad operations: each part would wait for the same lock again.
    async with open_store(busy_timeout_s=0.5) as backend:
        phone = await (await register(backend)).log_in()
        with backend.locked():
            async with asyncio.timeout(20):
                answers = await backend.perform_all([phone.pushing(n) for n in range(1, 65)])
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert await phone.account.wallet() is None


async def test_a_database_that_locks_up_amid_a_batch_is_not_asked_for_the_rest(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        # The bad operation makes the batch fall apart, and the parts find the disk gone.
        disk.fail_commit = OperationalError("COMMIT", None, sqlite3.OperationalError("gone"))
        before = disk.commits
        answers = await backend.perform_batch(
            [*[phone.pushing(n) for n in range(1, 9)], bad_account()]
        )

        assert all(isinstance(answer, Unavailable) for answer in answers)
        # One for the operation that held the lane, one for the first part.
        assert disk.commits - before == 2


async def test_a_read_only_database_can_be_read_and_comes_back(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        stored = await phone.push(1)
    disk.pragmas = ["query_only=ON"]
    async with open_store_again(open_store, disk) as backend:
        account = phone.account
        await assert_unavailable(backend, phone.pushing(2))
        await assert_unavailable(backend, creating("new@example.com"))
        await assert_unavailable(backend, ProbeWrite())
        assert await backend.perform(LoadWallet(account.account_id, None)) == stored
        disk.pragmas = []
        assert (await backend.perform(phone.pushing(2))).fresh


def open_store_again(open_store: OpenSqlite, disk: Disk) -> Any:
    """Opens it with a disk that is sound until the lanes connect."""
    return _SoundAtFirst(open_store, disk)


class _SoundAtFirst:
    def __init__(self, open_store: OpenSqlite, disk: Disk) -> None:
        self._opening = open_store()
        self._disk = disk

    async def __aenter__(self) -> SqlBackend:
        pragmas, self._disk.pragmas = self._disk.pragmas, []
        backend = await self._opening.__aenter__()
        self._disk.pragmas = pragmas
        return backend

    async def __aexit__(self, *failure: Any) -> Any:
        return await self._opening.__aexit__(*failure)


async def test_a_full_disk_is_unavailable_until_there_is_room(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        await phone.push(1, "x" * 4000)
    disk.pragmas = ["max_page_count=100"]
    async with open_store_again(open_store, disk) as backend:
        wallet = "x" * 200_000
        answers = [
            (await backend.perform_batch([phone.pushing(n, wallet)]))[0] for n in (2, 3, 3, 3)
        ]

        assert answers[0].fresh
        assert [type(answer) for answer in answers[1:]] == [Unavailable] * 3
        # What was answered is there, and what was not is not.
        state = await backend.perform(LoadWallet(phone.account.account_id, None))
        assert state is not None
        assert state.sequence == 2

        disk.pragmas = []
        assert (await backend.perform(phone.pushing(3, wallet))).fresh


async def test_a_full_disk_amid_a_single_operation_leaves_nothing_of_it(
    open_store: OpenSqlite, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    # SQLite ends the transaction by itself: then there is no savepoint to return to.
    async with open_store() as backend:
        phone = await (await register(backend)).log_in()
        await phone.push(1, "small")
    disk.pragmas = ["max_page_count=60"]
    async with open_store_again(open_store, disk) as backend:
        change = phone.replacing(SealedWallet(2, "x" * 256_000, "mac"))
        await assert_unavailable(backend, change)

        assert "SQLITE_FULL" in caplog.text
        assert "savepoint" not in caplog.text
        credentials = await backend.perform(LoadCredentials(phone.account.email))
        assert credentials is not None
        assert credentials.password == make_password()
        disk.pragmas = []
        assert (await backend.perform(phone.pushing(2))).fresh


async def test_a_fault_is_logged_once_and_so_is_the_recovery(
    open_store: OpenSqlite, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(busy_timeout_s=0.02) as backend:
        phone = await (await register(backend)).log_in()
        with backend.locked():
            for _ in range(5):
                await assert_unavailable(backend, phone.pushing(1, SECRET, SECRET))
        await phone.push(1)
        await phone.push(2)

    records = [record for record in caplog.records if "writing lane: " in record.getMessage()]
    assert [record.levelname for record in records] == ["ERROR", "WARNING"]
    assert "OperationalError (SQLITE_BUSY): database is locked" in records[0].getMessage()
    assert "can be used again" in records[1].getMessage()
    assert SECRET not in caplog.text


async def test_a_connection_that_can_not_be_opened_is_the_databases_fault(
    open_store: OpenSqlite, disk: Disk
) -> None:
    async with open_store(busy_timeout_s=0.02) as backend:
        phone = await (await register(backend)).log_in()
        with backend.locked():
            # Drops the lane's connection.
            await assert_unavailable(backend, phone.pushing(1))
        disk.pragmas = ["no such pragma ("]  # The driver's error, from within the set-up.
        await assert_unavailable(backend, phone.pushing(1))
        disk.pragmas = []
        await phone.push(1)


async def test_a_damaged_database_is_the_databases_fault(open_store: OpenSqlite) -> None:
    async with open_store() as backend:
        account = await register(backend)
        phone = await account.log_in()
        await phone.push(1)
    damage(backend.path)
    async with open_store() as backend:
        answers = await backend.perform_batch([phone.pushing(2), phone.pushing(3)])

        assert all(isinstance(answer, Unavailable) for answer in answers)


def damage(path: Any) -> None:
    """Overwrite the pages of the table of devices and its indices."""
    connection = sqlite3.connect(path)
    pages = [
        page for (page,) in connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'devices'"
        )
    ]  # fmt: skip
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)


async def test_a_push_is_not_tried_on_a_connection_that_was_lost(
    phone: Login,
) -> None:
    backend = phone.account.backend
    assert isinstance(backend, SqlBackend)
    lane = backend.store._writing[0]  # type: ignore[attr-defined]  # no other way to lose it
    lane._connection.connection.driver_connection.close()

    await assert_unavailable(backend, phone.pushing(1))

    assert (await backend.perform(phone.pushing(1))).fresh
