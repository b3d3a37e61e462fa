"""Single values that the store remembers: which Mautic it belongs to, the catalogue, fingerprints, counters."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, delete, select

from mautic_sync.store.engine import upsert
from mautic_sync.store.schema import meta


def get(connection: Connection, key: str) -> str | None:
    return connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()


def put(connection: Connection, key: str, value: str) -> None:
    upsert(connection, meta, [{"key": key, "value": value}])


def get_json(connection: Connection, key: str) -> Any:
    value = get(connection, key)
    return None if value is None else orjson.loads(value)


def put_json(connection: Connection, key: str, value: Any) -> None:
    put(connection, key, orjson.dumps(value, default=sorted, option=orjson.OPT_NON_STR_KEYS).decode())


def drop(connection: Connection, key: str) -> None:
    connection.execute(delete(meta).where(meta.c.key == key))
