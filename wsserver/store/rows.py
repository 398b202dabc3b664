"""The driver itself, for what every push needs: many rows at once, and statements without any.

To bring a row there by way of SQLAlchemy takes longer than SQLite takes to write it. Errors are
SQLAlchemy's all the same, as everywhere in the store.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, UpdateBase
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError


def write_rows(
    connection: Connection, statement: UpdateBase, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Execute the statement with each of the rows, whose values are in its own order."""
    text = _compile(statement)
    driver = connection.dialect.loaded_dbapi
    try:
        connection.connection.cursor().executemany(text, rows)
    except driver.Error as error:
        raise _translate(error, connection, text) from error


def execute_text(connection: Connection, text: str) -> list[tuple[Any, ...]]:
    """What a statement without parameters gives."""
    driver = connection.dialect.loaded_dbapi
    try:
        cursor = connection.connection.cursor()
        cursor.execute(text)
        return [*cursor.fetchall()]
    except driver.Error as error:
        raise _translate(error, connection, text) from error


def _translate(error: Exception, connection: Connection, text: str) -> BaseException:
    dialect = connection.dialect
    return DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=dialect.is_disconnect(error, None, None),  # type: ignore[arg-type]  # the driver's own
        dialect=dialect,
    )


@functools.cache
def _compile(statement: UpdateBase) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))
