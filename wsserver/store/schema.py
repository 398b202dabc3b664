"""Brings a database's schema up to date (Alembic), and lays the ring of versions out."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, select, update

from wsserver.store.context import Installation
from wsserver.store.errors import SchemaTooNew as SchemaTooNew
from wsserver.store.errors import SchemaTooOld
from wsserver.store.tables import installation, newest_sequence, versions

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(connection: Connection) -> tuple[str | None, str]:
    """Upgrade the schema to this version's; gives the revisions before and after.

    Raises SchemaTooNew when the database is ahead of this version.
    """
    config = _configure(connection)
    before, after = _read_revisions(connection, config)
    if before != after:
        command.upgrade(config, "head")
    return before, after


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
    """The database's revision, and this version's; raises SchemaTooNew."""
    before = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    after = scripts.get_current_head()
    assert after is not None, "there is at least one migration"
    known = {script.revision for script in scripts.walk_revisions()}
    if before is not None and before not in known:
        raise SchemaTooNew(
            f"the database has schema revision {before}, which this version of the server does "
            "not know; run the newer version that made it"
        )
    return before, after


def install(connection: Connection, *, history_depth: int, now_ms: int) -> Installation:
    """Make the installation's row at the first start; lay the ring out anew for another depth."""
    row = connection.execute(select(installation)).one_or_none()
    if row is None:
        made = Installation(secrets.token_bytes(32), history_depth)
        connection.execute(
            insert(installation).values(
                id=1, decoy_key=made.decoy_key, history_depth=history_depth, probed_at=now_ms
            )
        )
        return made
    if row.history_depth != history_depth:
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
