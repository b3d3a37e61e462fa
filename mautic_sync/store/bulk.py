"""Many rows with one statement.

SQLAlchemy prepares each row for about as long as SQLite takes to store it; here the statement is compiled once and
the rows are prepared column by column. What is stored is the same: the types of the columns convert the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Table, insert

from mautic_sync.store.text import Stored

FEW = 20  # rows, for which all this would not pay


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns."""
    if rows:
        execute_many(connection, table, _insert(table), rows)


def insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that have these columns, in this order."""
    if rows:
        execute_rows(connection, table, _insert(table), names, rows)


def execute_rows(
    connection: Connection, table: Table, statement: Insert, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Execute an insert into `table` for rows that have these columns, in this order."""
    dialect = connection.dialect
    if dialect.name != "sqlite" or len(rows) < FEW:
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
        return
    sql, places = _compiled(statement, dialect, tuple(names))
    columns = list(zip(*rows, strict=True))
    prepared = [_prepared(table.c[name].type, dialect, columns[names.index(name)]) for name in places]
    connection.exec_driver_sql(sql, list(zip(*prepared, strict=True)))


def execute_many(connection: Connection, table: Table, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute an insert into `table` for rows that all have the same columns; best with the same statement each time."""
    dialect = connection.dialect
    if dialect.name != "sqlite" or len(rows) < FEW:
        connection.execute(statement, list(rows))
        return
    sql, places = _compiled(statement, dialect, tuple(rows[0]))
    prepared = [_prepared(table.c[name].type, dialect, [row[name] for row in rows]) for name in places]
    connection.exec_driver_sql(sql, list(zip(*prepared, strict=True)))


@cache
def _insert(table: Table) -> Insert:
    return insert(table)


@lru_cache(maxsize=64)
def _compiled(statement: Insert, dialect: Dialect, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The statement as text, and the columns whose values it takes, in order."""
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
    return str(compiled), tuple(compiled.positiontup)


def _prepared(kind: Any, dialect: Any, values: Sequence[Any]) -> Sequence[Any]:
    """The values of one column as the driver takes them."""
    if isinstance(kind, Stored) and kind.keeps(values):
        return values
    prepare = kind.dialect_impl(dialect).bind_processor(dialect)
    return values if prepare is None else [prepare(value) for value in values]
