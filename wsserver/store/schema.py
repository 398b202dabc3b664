"""Brings a database's schema up to date (Alembic), and lays the ring of versions out."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select, update

from wsserver.store.context import Installation
from wsserver.store.errors import SchemaTooNew as SchemaTooNew
from wsserver.store.errors import SchemaTooOld, StoreError
from wsserver.store.tables import installation, newest_sequence, versions

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
UNFINISHED: Final = "copy_under_way"
"""The table that is there while the database is being copied to."""


def check_finished(connection: Connection) -> None:
    """Raises StoreError where a copy into the database was begun and has not come to its end."""
    if inspect(connection).has_table(UNFINISHED):
        raise StoreError(
            "the database is the target of a copy that is not finished: run the same "
            "`wsserver copy` again"
        )


def migrate(connection: Connection) -> tuple[str | None, str]:
    """Upgrade the schema to this version's; gives the revisions before and after.

    Raises SchemaTooNew when the database is ahead of this version, and it can't go on with that.
    """
    config = _configure(connection)
    before, after = _read_revisions(connection, config)
    if before != after:
        command.upgrade(config, "head")
        connection.execute(update(installation).values(_tell_compatibility(config)))
    return before, after


def is_migrated(connection: Connection) -> bool:
    """Whether there is a schema of a server's, whichever."""
    return MigrationContext.configure(connection).get_current_revision() is not None


def check_schema(connection: Connection) -> None:
    """Raises SchemaTooOld or SchemaTooNew where it is not this version's; changes nothing.

    For what comes beside a running server: that one may be of the schema's version still.
    """
    before, after = _read_revisions(connection, _configure(connection))
    if before is None:
        raise SchemaTooOld("there is no wallet-sync database in it; `wsserver migrate` makes one")
    if before != after:
        raise SchemaTooOld(
            f"the database has schema revision {before}, and this version of the server needs "
            f"{after}: stop the server that uses it, then run `wsserver migrate`"
        )


def check_newest(connection: Connection) -> None:
    """Raises SchemaTooNew where it is a later version's, be it one that this one can go on with.

    For what has to know every table and column.
    """
    before, _ = _read_revisions(connection, _configure(connection))
    if before != (known := find_newest_revision()):
        raise SchemaTooNew(
            f"the database has schema revision {before}, and this version of the server knows "
            f"{known} at most; use the newer version that made it"
        )


def find_newest_revision() -> str:
    """The schema's revision of this version of the server."""
    newest = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert newest is not None, "there is at least one migration"
    return newest


def _configure(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _read_revisions(connection: Connection, config: Config) -> tuple[str | None, str]:
    """The database's revision, and the one to use it with; raises SchemaTooNew.

    The second is this version's, or the database's where that is a later one which this version can
    go on with: nodes of two versions serve one database while they are replaced.
    """
    before = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    after = scripts.get_current_head()
    assert after is not None, "there is at least one migration"
    known = {script.revision for script in scripts.walk_revisions()}
    if before is not None and before not in known:
        if _can_go_on(connection, before, after):
            return before, before
        raise SchemaTooNew(
            f"the database has schema revision {before}, which this version of the server does "
            "not know; run the newer version that made it"
        )
    return before, after


def _can_go_on(connection: Connection, revision: str, newest_known: str) -> bool:
    """Whether who made that later revision has left word that code of ours may go on."""
    columns = {column["name"] for column in inspect(connection).get_columns("installation")}
    if not {"schema_revision", "oldest_code"} <= columns:
        return False
    query = select(installation.c.schema_revision, installation.c.oldest_code)
    row = connection.execute(query).one_or_none()
    return row is not None and row[0] == revision and row[1] <= newest_known


def _tell_compatibility(config: Config) -> dict[str, str]:
    """The columns that tell which older code can go on: what every revision up to now leaves."""
    scripts = [*ScriptDirectory.from_config(config).walk_revisions()]
    return {
        "schema_revision": scripts[0].revision,
        "oldest_code": max(script.module.oldest_code for script in scripts),
    }


def install(
    connection: Connection,
    *,
    history_depth: int,
    now_ms: int,
    refuse_beside_others: Callable[[], None] = lambda: None,
) -> Installation:
    """Make the installation's row at the first start; lay the ring out anew for another depth.

    ``refuse_beside_others`` raises StoreError where others serve the database, with that depth.
    """
    query = select(installation.c.decoy_key, installation.c.history_depth)
    row = connection.execute(query).one_or_none()
    if row is None:
        made = Installation(secrets.token_bytes(32), history_depth)
        connection.execute(
            insert(installation).values(
                id=1,
                decoy_key=made.decoy_key,
                history_depth=history_depth,
                probed_at=now_ms,
                **_tell_compatibility(_configure(connection)),
            )
        )
        return made
    if row.history_depth != history_depth:
        try:
            refuse_beside_others()
        except StoreError as error:
            raise StoreError(
                f"{error}, with a history depth of {row.history_depth}; give this one the same "
                "WSSERVER_HISTORY_DEPTH, or stop all of them to change it"
            ) from None
        _lay_out(connection, row.history_depth, history_depth)
    return Installation(row.decoy_key, history_depth)


def _lay_out(connection: Connection, old_depth: int, new_depth: int) -> None:
    newest = newest_sequence(versions.c.account_id)
    connection.execute(delete(versions).where(versions.c.sequence <= newest - new_depth))
    # By way of slots beyond both rings: a row may not stand where another still is.
    beyond = max(old_depth, new_depth)
    connection.execute(update(versions).values(slot=beyond + versions.c.sequence % new_depth))
    connection.execute(update(versions).values(slot=versions.c.slot - beyond))
    connection.execute(update(installation).values(history_depth=new_depth))
