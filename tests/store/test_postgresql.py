"""The store on PostgreSQL: several lanes, several processes, faults of a machine elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, text

from tests.conftest import Databases
from tests.contract.backends import (
    PATIENCE_S,
    Account,
    SqlBackend,
    creating,
    gather_answers,
    open_sql,
    register,
)
from wsschema.errors import BadToken, Unavailable
from wsserver.operations import (
    LoadNotices,
    OpenSession,
    ProbeWrite,
)
from wsserver.store import migrations, operator, postgresql, sql
from wsserver.store.databases import (
    create_store_engine,
    database_exists,
    open_database,
    open_live_database,
    parse_url,
    refusing_beside_servers,
    require_sqlite,
)
from wsserver.store.errors import StoreError
from wsserver.store.lanes import LaneLimits
from wsserver.store.notices import give_notice
from wsserver.store.schema import migrate
from wsserver.store.tables import metadata

PASSWORD, LANES = "hunter2", 3


@pytest.fixture
def url(databases: Databases) -> str:
    return databases.create()


def open_node(url: str, **options: Any) -> AbstractAsyncContextManager[SqlBackend]:
    """A store as a process of its own would have it."""
    return open_sql(url, **{"lanes": LANES, **options})


def at(node: SqlBackend, account: Account) -> Account:
    """The account, by way of another node."""
    return Account(node, account.account_id, account.email, account.password)


def connect(databases: Databases, url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection of somebody else's."""
    connection = databases.server.connect(url.rpartition("/")[2])
    connection.autocommit = False
    return connection


# URLs, connections.


@pytest.mark.parametrize("kind", ["postgresql", "postgresql+psycopg"])
def test_the_url_of_a_server_means_psycopg(kind: str) -> None:
    parsed = parse_url(f"{kind}://joe:{PASSWORD}@db:5433/wallets?sslmode=require")
    assert parsed.drivername == "postgresql+psycopg"
    assert (parsed.host, parsed.port, parsed.database) == ("db", 5433, "wallets")
    assert parsed.query == {"sslmode": "require"}


def test_without_its_driver_the_url_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'wallet-sync\[server,postgresql\]'"):
        parse_url("postgresql://db/wallets")


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    url = parse_url(f"postgresql://joe:{PASSWORD}@127.0.0.1:1/wallets")
    with (
        pytest.raises(StoreError, match="the database wallets can't be used") as failed,
        open_database(url),
    ):
        pass
    assert PASSWORD not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_connections_are_set_up_for_what_they_do(databases: Databases, url: str) -> None:
    names = ["transaction_isolation", "transaction_read_only", "synchronous_commit"]
    names += ["statement_timeout", "lock_timeout"]

    def read(**options: Any) -> list[str]:
        with create_store_engine(parse_url(url), **options).connect() as connection:
            return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]

    with databases.server.connect() as connection:
        connection.execute(
            f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = 'off'"
        )
    assert read() == ["read committed", "off", "on", "0", "5s"]
    assert read(reading=True, bounded=True, busy_timeout_s=0.25) == [
        *("repeatable read", "on", "on", "8s", "250ms")
    ]


def test_what_is_for_a_file_says_what_to_do_instead(url: str) -> None:
    with pytest.raises(StoreError, match="on PostgreSQL use pg_dump"):
        require_sqlite(parse_url(url), "use pg_dump")


def test_an_empty_database_has_none_of_ours(databases: Databases, url: str) -> None:
    empty = parse_url(databases.server.create_database())
    assert not database_exists(empty)
    assert database_exists(parse_url(url))
    with (
        pytest.raises(StoreError, match="there is no wallet-sync database in it"),
        open_live_database(empty),
    ):
        pass
    databases.server.drop_database(str(empty))


# Starting.


async def test_several_processes_may_start_on_an_empty_database_at_once(
    databases: Databases,
) -> None:
    url = databases.server.create_database()

    async def start() -> None:
        async with open_node(url, opening={"shared": True}) as node:
            assert await node.perform_all([ProbeWrite()]) == [None]

    await asyncio.gather(*(start() for _ in range(4)))
    databases.server.drop_database(url)


def test_who_migrates_is_not_waited_for_without_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "MIGRATION_PATIENCE_S", 0.01)
    with (
        open_database(parse_url(url)),
        pytest.raises(StoreError, match="has been migrating"),
        open_database(parse_url(url)),
    ):
        pass


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("exclusive", "exclusive", "there is no bus between the two"),
        ("shared", "exclusive", "there is no bus between the two"),
        ("exclusive", "shared", "without a bus"),
    ],
)
async def test_without_a_bus_a_second_process_refuses_to_start(
    url: str, first: str, second: str, sentence: str
) -> None:
    async with open_node(url, opening={first: True}) as node:
        with pytest.raises(StoreError, match=sentence):
            async with open_node(url, opening={second: True}):
                pass
        assert await node.perform_all([ProbeWrite()]) == [None]
    async with open_node(url, opening={second: True}):
        pass


async def test_on_sqlite_there_is_one_process(tmp_path: Any) -> None:
    with pytest.raises(StoreError, match="many take PostgreSQL"):
        async with open_sql(f"sqlite:///{tmp_path}/wallets.db", opening={"shared": True}):
            pass


async def test_epochs_are_not_renewed_beside_a_server(url: str) -> None:
    with open_live_database(parse_url(url)) as connection, refusing_beside_servers(connection):
        starting = open_node(url, opening={"exclusive": True})
        with pytest.raises(StoreError, match="another server serves"):
            await starting.__aenter__()
    async with open_node(url, opening={"shared": True}):
        with (
            open_live_database(parse_url(url)) as connection,
            pytest.raises(StoreError, match="stop all of them first"),
            refusing_beside_servers(connection),
        ):
            pass


async def test_the_ring_is_not_laid_out_anew_under_another_server(url: str) -> None:
    async with open_node(url, opening={"shared": True}) as node:
        phone = await (await register(node)).log_in()
        await phone.push_many(range(1, 6))
        for opened in ({"shared": True}, {}):
            with pytest.raises(StoreError, match="with a history depth of 10"):
                async with open_node(url, history_depth=3, opening=opened):
                    pass
    async with (
        open_node(url, history_depth=3, opening={"shared": True}) as node,
        open_node(url, history_depth=3, opening={"shared": True}),
    ):
        account = at(node, phone.account)
        assert [await account.wallet(n) is None for n in range(1, 6)] == [True] * 2 + [False] * 3


async def test_the_lock_of_a_serving_process_is_taken_again(
    databases: Databases, url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(postgresql, "CHECK_INTERVAL_S", 0.05)
    tries: list[postgresql.ServingLock] = []
    take = postgresql.ServingLock.take

    def count_and_take(lock: postgresql.ServingLock) -> None:
        tries.append(lock)
        take(lock)

    monkeypatch.setattr(postgresql.ServingLock, "take", count_and_take)
    async with open_node(url, opening={"exclusive": True}) as node:
        other = connect(databases, url)
        other.autocommit = True
        holding = "SELECT pg_try_advisory_lock(22355, 2)"
        # As after a restart of the database, when another process is faster.
        await until(lambda: take_over(databases, other, holding))
        await until(lambda: "answering 503: another server serves" in caplog.text)
        already = len(tries)
        await until(lambda: len(tries) > already + 1)
        (answer,) = await node.perform_all([ProbeWrite()])
        assert isinstance(answer, Unavailable)
        other.close()

        async def serves() -> bool:
            (answer,) = await node.perform_all([ProbeWrite()])
            return answer is None

        async with asyncio.timeout(PATIENCE_S):
            while not await serves():
                await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match="there is no bus between the two"):
            async with open_node(url, opening={"exclusive": True}):
                pass
    assert caplog.text.count("answering 503: another server serves") == 1


async def test_the_lock_is_not_waited_for_longer_than_the_store_may_take_to_close(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "CHECK_INTERVAL_S", 0.01)
    lock = postgresql.ServingLock(create_store_engine(parse_url(url)), shared=True)
    reached, released = threading.Event(), threading.Event()

    def take() -> None:
        reached.set()
        released.wait(PATIENCE_S)

    monkeypatch.setattr(lock, "take", take)
    lock.start()
    assert await asyncio.to_thread(reached.wait, PATIENCE_S)
    assert not lock.close(0)
    released.set()
    assert lock.close(PATIENCE_S)


def take_over(databases: Databases, other: psycopg.Connection[Any], holding: str) -> bool:
    pid = other.info.backend_pid
    with databases.server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND pid <> %s",
            (pid,),
        )
    (taken,) = other.execute(holding).fetchone() or (False,)
    return bool(taken)


async def until(is_so: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


# The schema.


def test_a_migration_can_be_taken_back(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with open_database(parse_url(url)):
        pass
    with create_store_engine(parse_url(url)).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        migrate(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


# Lanes.


async def test_an_account_is_always_on_the_same_lane(url: str) -> None:
    async with open_node(url) as node:
        accounts = [await register(node, f"user{n}@example.com") for n in range(4)]
        logins = [await account.log_in() for account in accounts]
        before = len(node.batches)
        await node.perform_all([login.pushing(n) for n in range(1, 6) for login in logins])
    used = {lane for lane, _ in node.batches[before:]}
    assert used == {"writing lane 1", "writing lane 2", "writing lane 3"}
    for login in logins:
        pushes = [it for it, _ in node.answered if getattr(it, "token_hash", 0) == login.token_hash]
        assert [getattr(push, "sequence", 0) for push in pushes] == [1, 2, 3, 4, 5]


async def test_a_notice_is_answered_after_what_was_committed_before_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that has committed, and whose lane is slow to hand it over, hears of a notice."""
    committed, released = threading.Event(), threading.Event()
    hand_over = sql.SqlStore._hand_over

    def hand_over_late(store: Any, answers: list[Any]) -> None:
        if any(isinstance(waiting.operation, OpenSession) for waiting, _ in answers):
            committed.set()
            released.wait(PATIENCE_S)
        hand_over(store, answers)

    monkeypatch.setattr(sql.SqlStore, "_hand_over", hand_over_late)
    async with open_node(url) as node:
        # Not on the lane of notices, which is the first.
        accounts = [await register(node, f"user{n}@example.com") for n in range(2)]
        account = next(one for one in accounts if one.account_id % LANES)
        (opening,) = node.submit_all([account.opening()])
        assert await asyncio.to_thread(committed.wait, PATIENCE_S)
        with node.engine.begin() as connection:
            give_notice(connection, account.account_id, "account_disabled", now_ms=0)
        (loading,) = node.submit_all([LoadNotices(0, 10)])
        await node.perform(ProbeWrite())
        assert not loading.done()
        released.set()
        opened, loaded = await gather_answers([opening, loading])

    assert [notice.reason for notice in loaded] == ["account_disabled"]
    order = [operation for operation, answer in node.answered if answer in (opened, loaded)]
    assert [type(operation) for operation in order] == [OpenSession, LoadNotices]


# Faults.


class Commits:
    """What befalls the commits of a store: ``before_commit`` is called once, on a lane."""

    def __init__(self) -> None:
        self.before_commit: Any = None

    def watch(self, engine: Engine) -> Engine:
        def commit(connection: Connection) -> None:
            befall, self.before_commit = self.before_commit, None
            if befall is not None:
                befall()

        event.listen(engine, "commit", commit)
        return engine


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    commits = Commits()

    def create(*arguments: Any, **options: Any) -> Engine:
        engine = create_store_engine(*arguments, **options)
        return engine if options.get("reading") else commits.watch(engine)

    monkeypatch.setattr(sql, "create_store_engine", create)
    return commits


async def test_a_connection_that_is_lost_costs_nobody_an_answer(
    databases: Databases, url: str
) -> None:
    async with open_node(url, lanes=1) as node:
        phone = await (await register(node)).log_in()
        for sequence in range(1, 4):
            end_others(databases, url)
            await phone.push(sequence)
            assert await phone.account.wallet(sequence) is not None


def end_others(databases: Databases, url: str) -> None:
    with databases.server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            (url.rpartition("/")[2],),
        )


async def test_a_commit_in_doubt_is_answered_503_and_a_retry_is_safe(
    databases: Databases, url: str, commits: Commits, caplog: Any
) -> None:
    doubted: list[Any] = []
    async with open_node(url, lanes=1, doubt=doubted.extend) as node:
        phone = await (await register(node)).log_in()
        push = phone.pushing(1)
        commits.before_commit = lambda: end_others(databases, url)
        (answer,) = await node.perform_all([push])
        assert isinstance(answer, Unavailable)
        assert answer.retry_after_ms > 0
        assert doubted == [push]
        assert "a commit is in doubt" in caplog.text
        assert (await node.perform(push)).state.sequence == 1
        assert "can be used again" in caplog.text


async def test_a_commit_that_a_constraint_refuses_is_in_no_doubt(
    url: str, commits: Commits, databases: Databases
) -> None:
    doubted: list[Any] = []
    async with open_node(url, lanes=1, doubt=doubted.extend) as node:
        phone = await (await register(node)).log_in()
        with node.engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE TABLE late (account_id bigint REFERENCES accounts "
                    "DEFERRABLE INITIALLY DEFERRED)"
                )
            )
            connection.execute(
                text(
                    "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS "
                    "'BEGIN INSERT INTO late VALUES (999); RETURN NULL; END'"
                )
            )
            connection.execute(
                text("CREATE TRIGGER fill AFTER INSERT ON versions EXECUTE FUNCTION fill()")
            )
        answers = await node.perform_batch([phone.pushing(1), creating("new@example.com")])
    assert [type(answer).__name__ for answer in answers] == ["InternalError", "NoneType"]
    assert doubted == []


async def test_a_deadlock_is_nobodys_trouble(databases: Databases, url: str) -> None:
    async with open_node(url, lanes=1) as node:
        accounts = [await register(node, f"user{n}@example.com") for n in range(2)]
        logins = [await account.log_in() for account in accounts]
        other = connect(databases, url)
        # It is the lane that finds out.
        other.execute("SET deadlock_timeout = '60s'")
        lock = "SELECT FROM accounts WHERE id = %s FOR UPDATE"
        other.execute(lock, (accounts[1].account_id,))
        pushing = node.submit_all([login.pushing(1) for login in logins])
        await until(lambda: waits_for_a_lock(databases))
        await asyncio.to_thread(other.execute, lock, (accounts[0].account_id,))
        other.commit()
        other.close()
        assert [answer.fresh for answer in await gather_answers(pushing)] == [True, True]


def waits_for_a_lock(databases: Databases) -> bool:
    with databases.server.connect() as connection:
        found = connection.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return found.fetchone() is not None


async def test_what_another_holds_for_too_long_is_answered_503(
    databases: Databases, url: str, caplog: Any
) -> None:
    limits = LaneLimits(wait_s=0.3)
    async with open_node(url, lanes=1, limits=limits, busy_timeout_s=0.05) as node:
        caplog.set_level(logging.WARNING)
        with open_live_database(parse_url(url)) as connection:
            connection.execute(text("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE"))
            (answer,) = await node.perform_all([ProbeWrite()])
            assert isinstance(answer, Unavailable)
        async with asyncio.timeout(PATIENCE_S):
            while await node.perform_all([ProbeWrite()]) != [None]:
                await asyncio.sleep(0.01)
    assert "(55P03)" in caplog.text
    assert "can be used again" in caplog.text


async def test_closing_does_not_wait_for_a_database_that_is_away(
    databases: Databases, url: str
) -> None:
    limits = LaneLimits(wait_s=600)
    async with open_node(url, lanes=1, limits=limits, busy_timeout_s=0.05) as node:
        with open_live_database(parse_url(url)) as connection:
            connection.execute(text("LOCK TABLE installation IN ACCESS EXCLUSIVE MODE"))
            probing = node.submit_all([ProbeWrite()])
            await node.store.close(PATIENCE_S)
            assert isinstance((await gather_answers(probing))[0], Unavailable)


# What the operator's commands do.


async def test_a_device_that_the_operator_revokes_pushes_no_more(url: str) -> None:
    async with open_node(url) as node:
        phone = await (await register(node)).log_in()
        await phone.push(1)
        with open_live_database(parse_url(url)) as connection:
            revoked = operator.revoke_devices(
                connection, phone.account.email, device_id=None, forget=False, now_ms=0
            )
            assert revoked == ["phone"]
            pushing = node.submit_all([phone.pushing(2)])
        assert isinstance((await gather_answers(pushing))[0], BadToken)
