"""The driver itself, for what every push and every resume needs: many rows at once.

To bring a row there by way of SQLAlchemy takes longer than SQLite takes to write it. Errors are
SQLAlchemy's all the same, as everywhere in the store.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, UpdateBase
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


def read_rows(
    connection: Connection, statement: Select[*tuple[Any, ...]], values: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """The rows that a query gives for these values, which are in its own order."""
    return execute_text(connection, _compile(statement), values)


def execute_text(
    connection: Connection, text: str, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """What a statement gives."""
    driver = connection.dialect.loaded_dbapi
    try:
        cursor = connection.connection.cursor()
        cursor.execute(text, values)
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
def _compile(statement: UpdateBase | Select[*tuple[Any, ...]]) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))
