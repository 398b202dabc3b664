"""The driver itself, for what every push and every resume needs: many rows at once.

To bring a row there by way of SQLAlchemy takes longer than SQLite takes to write it. Errors are
SQLAlchemy's all the same, as everywhere in the store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, UpdateBase, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError


def is_postgresql(connection: Connection) -> bool:
    """Whether it leads to PostgreSQL; to SQLite otherwise."""
    return connection.dialect.name == "postgresql"


def by_dialect(make: Callable[[Any], Any]) -> Mapping[str, Any]:
    """A statement that is built on each dialect's own ``insert``, by the dialect's name.

    Its result has the number of rows.
    """
    inserts = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
    return {
        name: make(insert).execution_options(preserve_rowcount=True)
        for name, insert in inserts.items()
    }


def write_rows(
    connection: Connection, statement: UpdateBase, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Execute the statement with each of the rows, whose values are in its own order."""
    text = _compile(statement, connection.dialect.name)
    driver = connection.dialect.loaded_dbapi
    try:
        connection.connection.cursor().executemany(text, rows)
    except driver.Error as error:
        raise _translate(error, connection, text) from error


def copy_rows(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows, which are in the order of the table's columns; many at once."""
    if not is_postgresql(connection):
        write_rows(connection, insert(table), [tuple(row) for row in rows])
        return
    names = ", ".join(column.name for column in table.columns)
    text = f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)"
    types = [str(column.type.compile(connection.dialect)).lower() for column in table.columns]
    try:
        with connection.connection.cursor().copy(text) as copying:
            copying.set_types(types)
            for row in rows:
                copying.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translate(error, connection, text) from error


def read_rows(
    connection: Connection, statement: Select[*tuple[Any, ...]], values: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """The rows that a query gives for these values, which are in its own order."""
    return execute_text(connection, _compile(statement, connection.dialect.name), values)


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
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]  # the driver's own
    return DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )


@functools.cache
def _compile(statement: UpdateBase | Select[*tuple[Any, ...]], dialect_name: str) -> str:
    # Values by their place, as the driver takes them.
    dialect: Any = PGDialect_psycopg if dialect_name == "postgresql" else sqlite.dialect
    options = {"paramstyle": "format"} if dialect_name == "postgresql" else {}
    return str(statement.compile(dialect=dialect(**options)))
