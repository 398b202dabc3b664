"""Nodes of two versions on one database: the older goes on while the newer has migrated it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import URL, Connection, text

from tests.conftest import Databases
from tests.contract.backends import open_sql, register
from wsserver.store import schema
from wsserver.store.databases import create_store_engine, open_database, open_live_database
from wsserver.store.databases import parse_url as parse
from wsserver.store.schema import SchemaTooNew

PREVIOUS = "0002"
# How a push was stored by the code of that revision.
PUSH_OF_PREVIOUS = """
    INSERT INTO versions
        (account_id, slot, sequence, device_id, updated_at, hmac, encrypted_wallet)
    VALUES (:account_id, :slot, :sequence, 'phone', 0, :hmac, :wallet)
    ON CONFLICT (account_id, slot) DO UPDATE SET sequence = excluded.sequence,
        device_id = excluded.device_id, updated_at = excluded.updated_at, hmac = excluded.hmac,
        encrypted_wallet = excluded.encrypted_wallet
"""
READ_OF_PREVIOUS = """
    SELECT devices.device_id, accounts.disabled, coalesce(max(versions.sequence), 0) AS sequence
    FROM devices JOIN accounts ON accounts.id = devices.account_id
    LEFT JOIN versions ON versions.account_id = accounts.id
    WHERE devices.token_hash = :token_hash GROUP BY devices.device_id, accounts.disabled
"""
INSTALLATION_OF_PREVIOUS = "SELECT id, decoy_key, history_depth, probed_at FROM installation"
TOKEN_HASH = b"t" * 32
NEXT = """
import sqlalchemy as sa
from alembic import op
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
oldest_code = "{oldest_code}"


def upgrade() -> None:
    with op.batch_alter_table("devices") as batch_op:
        batch_op.add_column(sa.Column("colour", sa.Text(), nullable=True))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'wallets.db'}"
        return
    databases: Databases = request.getfixturevalue("databases")
    made = databases.server.create_database()
    yield made
    databases.server.drop_database(made)


class OlderNode:
    """Pushes as the code of the previous revision did, on a thread of its own, until stopped."""

    def __init__(self, url: URL) -> None:
        self._engine = create_store_engine(url)
        self.pushed = 0
        self.failure: BaseException | None = None
        self._ending = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def wait_for_more(self, pushes: int) -> None:
        with self._progress:
            wanted = self.pushed + pushes
            done = self._progress.wait_for(lambda: self.failure or self.pushed >= wanted, 60)
        assert done
        assert self.failure is None, self.failure

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(60)

    def _work(self) -> None:
        try:
            while not self._ending.is_set():
                with self._engine.begin() as connection:
                    self._push(connection)
                with self._progress:
                    self.pushed += 1
                    self._progress.notify_all()
        except BaseException as error:
            with self._progress:
                self.failure = error
                self._progress.notify_all()

    def _push(self, connection: Connection) -> None:
        connection.execute(text(INSTALLATION_OF_PREVIOUS)).one()
        row = connection.execute(text(READ_OF_PREVIOUS), {"token_hash": TOKEN_HASH}).one()
        assert row.sequence == self.pushed
        values = {"account_id": 1, "slot": (row.sequence + 1) % 10, "sequence": row.sequence + 1}
        connection.execute(text(PUSH_OF_PREVIOUS), {**values, "hmac": b"m", "wallet": b"w" * 2000})


def make_previous(url: URL) -> None:
    """The database as the previous revision's code made it, with an account and a device."""
    with create_store_engine(url).begin() as connection:
        command.upgrade(schema._configure(connection), PREVIOUS)
        connection.execute(
            text(
                "INSERT INTO installation (id, decoy_key, history_depth, probed_at) "
                "VALUES (1, :key, 10, 0)"
            ),
            {"key": b"k" * 32},
        )
        connection.execute(
            text(
                "INSERT INTO accounts VALUES (1, 'joe@example.com', :digest, :digest, 2, 8, 1, "
                ":seed, 16384, 8, 1, :epoch, 0, true, false, 0)"
            ),
            {"digest": b"d" * 32, "seed": "ab" * 32, "epoch": "e" * 32},
        )
        connection.execute(
            text("INSERT INTO devices VALUES (1, 'phone', null, :token_hash, 0, 0, 0, 0)"),
            {"token_hash": TOKEN_HASH},
        )


def test_the_previous_version_goes_on_while_the_newest_migrates(url: str) -> None:
    make_previous(parse(url))
    older = OlderNode(parse(url))
    try:
        older.wait_for_more(5)
        with open_database(parse(url)) as connection:
            pass
        older.wait_for_more(20)
    finally:
        older.stop()
    with open_live_database(parse(url)) as connection:
        newest = connection.execute(text("SELECT max(sequence) FROM versions")).scalar_one()
    assert newest == older.pushed


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A later version's migrations; ``0004`` is to be written."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema._MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def migrate_as(newer: Path, url: str, oldest_code: str) -> None:
    (newer / "versions/0004_next.py").write_text(NEXT.format(oldest_code=oldest_code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", newer)
        with open_database(parse(url)):
            pass


async def test_this_version_goes_on_with_a_later_schema_that_lets_it(url: str, newer: Path) -> None:
    async with open_sql(url) as node:
        phone = await (await register(node)).log_in()
        await phone.push(1)
        migrate_as(newer, url, "0003")
        await phone.push(2)
        laptop = await phone.account.log_in("laptop")
    # It starts, too, and so do its commands.
    async with open_sql(url) as node:
        assert await node.perform_all([laptop.pushing(3)])
    with open_live_database(parse(url)) as connection:
        current = "SELECT schema_revision, oldest_code FROM installation"
        assert connection.execute(text(current)).one() == ("0004", "0003")


async def test_a_later_schema_that_needs_later_code_is_refused(url: str, newer: Path) -> None:
    async with open_sql(url):
        pass
    migrate_as(newer, url, "0004")
    with pytest.raises(SchemaTooNew, match="schema revision 0004"):
        async with open_sql(url):
            pass


def test_a_later_schema_that_has_left_no_word_is_refused(url: str) -> None:
    make_previous(parse(url))
    with create_store_engine(parse(url)).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with (
        pytest.raises(SchemaTooNew, match="schema revision 9999"),
        open_database(parse(url)),
    ):
        pass


def test_every_migration_says_which_code_can_go_on_with_it() -> None:
    for path in (schema._MIGRATIONS / "versions").glob("0*.py"):
        assert "\noldest_code = " in path.read_text()
