"""`where` and `order` parameters as SQL, with Mautic's tolerance and its lack of it (docs/mautic.md: "Reading what changed")."""

import re
from collections.abc import Collection, Mapping
from typing import Any

_COMPARISONS = {"eq": "=", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE"}
_TIME = re.compile(r"^\s*(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?")
_NUMBER = re.compile(r"^\s*[-+]?\d+(?:\.\d+)?")


class UnknownColumnError(Exception):
    """A filter or an order names a column that the table does not have."""

    def __init__(self, column: str, clause: str) -> None:
        super().__init__(column)
        self.column = column
        self.clause = clause


class BrokenFilterError(Exception):
    """PHP itself stumbles over the filter."""


def snake(name: str) -> str:
    """`dateModified` as the database spells it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def where_sql(
    conditions: Any, columns: Collection[str], numbers: Collection[str], *, camel: bool = False
) -> tuple[str, list[Any]]:
    """`where` as an SQL condition and its values; unknown expressions are dropped in silence, as Mautic does."""
    parts: list[str] = []
    values: list[Any] = []
    for condition in _listed(conditions):
        part = _condition(condition, columns, numbers, camel=camel)
        if part is not None:
            parts.append(part[0])
            values.extend(part[1])
    return (" AND ".join(f"({p})" for p in parts) or "1", values)


def order_sql(order: Any, table: str, columns: Collection[str]) -> str:
    """`order[0][col]`, `order[0][dir]` as SQL."""
    parts = []
    for entry in _listed(order):
        if isinstance(entry, Mapping) and entry.get("col"):
            column = str(entry["col"])
            if column not in columns:
                raise UnknownColumnError(column, "ORDER BY")
            parts.append(f"{table}.{column} {'DESC' if str(entry.get('dir', '')).lower() == 'desc' else 'ASC'}")
    return ", ".join(parts)


def _listed(conditions: Any) -> list[Any]:
    if isinstance(conditions, Mapping):
        return list(conditions.values())
    return list(conditions) if isinstance(conditions, list) else []


def _condition(
    condition: Any, columns: Collection[str], numbers: Collection[str], *, camel: bool
) -> tuple[str, list[Any]] | None:
    if not isinstance(condition, Mapping):
        return None
    expression = str(condition.get("expr", ""))
    if expression in {"orX", "andX"}:
        inner = [_condition(c, columns, numbers, camel=False) for c in _listed(condition.get("val"))]
        kept = [c for c in inner if c is not None]
        if not kept:
            return None
        glue = " OR " if expression == "orX" else " AND "
        return glue.join(f"({c[0]})" for c in kept), [v for c in kept for v in c[1]]
    value = condition.get("val")
    known = expression in _COMPARISONS or expression in {"isNull", "isNotNull", "in", "notIn", "notLike", "between"}
    if not known or not condition.get("col"):
        return None
    column = str(condition["col"])
    column = snake(column) if camel else column
    if column not in columns:
        raise UnknownColumnError(column, "WHERE")
    number = column in numbers
    if expression in {"isNull", "isNotNull"}:
        return f"{column} IS {'NOT ' if expression == 'isNotNull' else ''}NULL", []
    if expression in {"in", "notIn"}:
        if isinstance(value, Mapping | list):
            raise BrokenFilterError(column)
        listed = [_cast(v, number=number) for v in str(value).split(",")]
        return f"{column} {'NOT ' if expression == 'notIn' else ''}IN ({', '.join('?' * len(listed))})", listed
    if expression == "between":
        ends = _listed(value)
        if len(ends) != 2:
            return None
        return f"{column} BETWEEN ? AND ?", [_cast(v, number=number) for v in ends]
    if isinstance(value, Mapping | list):
        raise BrokenFilterError(column)
    if column.startswith("date_") or column in {"last_active", "last_opened"}:
        moment = _moment(str(value))
        if moment is None:
            return "1", []
        return f"{column} {_COMPARISONS.get(expression, 'NOT LIKE')} ?", [moment]
    operator = _COMPARISONS.get(expression, "NOT LIKE")
    return f"{column} {operator} ?", [_cast(value, number=number and "LIKE" not in operator)]


def _moment(text: str) -> str | None:
    found = _TIME.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def _cast(value: Any, *, number: bool) -> Any:
    if not number:
        return str(value)
    found = _NUMBER.match(str(value))
    if found is None:
        return 0
    text = found[0]
    return float(text) if "." in text else int(text)
