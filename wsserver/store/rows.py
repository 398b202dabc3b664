"""The driver itself, for what every push needs: many rows at once, and statements without any.

To bring a row there by way of SQLAlchemy takes longer than SQLite takes to write it. Errors are
SQLAlchemy's all the same, as everywhere in the store.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, UpdateBase
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError


def write_rows(
    connection: Connection, statement: UpdateBase, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Execute the statement with each of the rows, whose values are in its own order."""
    text = _compile(statement)
    with _telling_errors(connection, text):
        connection.connection.cursor().executemany(text, rows)


def execute_text(connection: Connection, text: str) -> list[tuple[Any, ...]]:
    """What a statement without parameters gives."""
    with _telling_errors(connection, text):
        cursor = connection.connection.cursor()
        cursor.execute(text)
        return [*cursor.fetchall()]


@contextlib.contextmanager
def _telling_errors(connection: Connection, text: str) -> Iterator[None]:
    driver = connection.dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        raise DBAPIError.instance(
            text,
            None,
            error,
            driver.Error,
            hide_parameters=True,
            connection_invalidated=connection.dialect.is_disconnect(error, None, None),
            dialect=connection.dialect,
        ) from error


@functools.cache
def _compile(statement: UpdateBase) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))
