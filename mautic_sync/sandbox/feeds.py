# ruff: noqa: S608  (names of tables and columns are the sandbox's own; values are always bound)
"""`/api/stats`: the statistics tables, read by rule (docs/mautic.md: "Reading what changed")."""

import re
from typing import Any

import orjson

from .filters import BrokenFilterError, UnknownColumnError, order_sql, where_sql
from .instance import CrashedError, Instance
from .shapes import Row
from .tables import COLUMNS_OF_7, FEEDS, sql_type

#: Mautic gives each feed's table an alias in its SQL, which its error texts show.
_ALIASES = {"channel_url_trackables": "t"}
_NUMBERS = {table: frozenset(c for c in columns if "INTEGER" in sql_type(c)) for table, columns in FEEDS.items()}
_DEFAULT_LIMIT = 100
_NULL = re.compile(rb',"[a-z_]+":null')
_NULL_FIRST = re.compile(rb'\{"[a-z_]+":null,')


class Feeds:
    """Pages of the statistics tables."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        newer = instance.traits.has_projects
        self._columns = {
            table: tuple(c for c in columns if newer or c not in COLUMNS_OF_7.get(table, ()))
            for table, columns in FEEDS.items()
        }
        self._select = {table: _row_as_json(table, columns) for table, columns in self._columns.items()}
        #: rows that are not to be seen yet, by table: how a moving feed shows rows out of id order
        self.hidden: dict[str, set[int]] = {}
        self.hidden_until = 0.0

    def overview(self) -> Row:
        return {
            "availableTables": sorted(self._columns),
            "tableColumns": {table: sorted(columns, key=str.upper) for table, columns in sorted(self._columns.items())},
        }

    def page(self, table: str, query: Row) -> Row:
        """One page; an unknown table answers with the list of tables, a bad column with `errors`, both as 200."""
        if table not in self._columns:
            return self.overview()
        columns = self._columns[table]
        tables = self._instance.tables
        try:
            condition, values = where_sql(query.get("where"), frozenset(columns), _NUMBERS[table])
            order = order_sql(query.get("order"), table, frozenset(columns))
        except UnknownColumnError as unknown:
            alias = _ALIASES.get(table, "e")
            message = (
                "An exception occurred while executing a query: SQLSTATE[42S22]: Column not found: 1054 Unknown column "
                f"'{alias}.{unknown.column}' in '{unknown.clause}'"
            )
            return {"errors": [{"message": message, "code": 1054}]}
        except BrokenFilterError:
            raise CrashedError from None
        if self.hidden and self._instance.moment() > self.hidden_until:
            self.hidden.clear()
        if self.hidden.get(table):
            condition = f"({condition}) AND id NOT IN ({', '.join(map(str, self.hidden[table]))})"
        limit, start = _whole(query.get("limit"), _DEFAULT_LIMIT), _whole(query.get("start"), 0)
        total = tables.value(f"SELECT COUNT(*) FROM {table} WHERE {condition}", values)
        rows = tables.column(
            f"SELECT {self._select[table]} FROM {table} WHERE {condition} "
            f"{f'ORDER BY {order}' if order else ''} LIMIT ? OFFSET ?",
            (*values, limit, start),
        )
        return {"total": str(total), "stats": orjson.Fragment(b"[" + _without_nulls(",".join(rows).encode()) + b"]")}


def _without_nulls(rows: bytes) -> bytes:
    """Columns that are NULL are left out. Inside a text the quotes would be escaped, so only keys are met."""
    return _NULL_FIRST.sub(b"{", _NULL.sub(b"", rows))


def _row_as_json(table: str, columns: tuple[str, ...]) -> str:
    """SQL that makes a row's JSON, all values texts: SQLite does it faster than Python."""
    pairs = (f"'{c}', {f'CAST({c} AS TEXT)' if c in _NUMBERS[table] else c}" for c in columns)
    return f"json_object({', '.join(pairs)})"


def _whole(value: Any, default: int) -> int:
    if value is None or value == "":
        return default
    text = str(value)
    if not text.lstrip("-").isdigit():
        raise CrashedError
    return int(text)
