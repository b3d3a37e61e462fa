"""Runs, cursors, plans and the quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from mautic_sync.store.engine import in_chunks, upsert
from mautic_sync.store.schema import cursor, plan, quarantine, run
from mautic_sync.store.text import storable

EXCERPT_CHARACTERS = 2000


def begin_run(connection: Connection, run_id: str, command: str, now: int) -> None:
    connection.execute(insert(run), {"id": run_id, "command": command, "started_at": now})


def end_run(connection: Connection, run_id: str, now: int, exit_code: int, summary: Mapping[str, Any]) -> None:
    connection.execute(
        update(run)
        .where(run.c.id == run_id)
        .values(ended_at=now, exit_code=exit_code, summary=orjson.dumps(dict(summary)).decode())
    )


def last_start(connection: Connection) -> int | None:
    """When the latest run began, by its own `now`."""
    started: int | None = connection.execute(select(func.max(run.c.started_at))).scalar()
    return started


def count_begun_at(connection: Connection, now: int) -> int:
    return connection.execute(select(func.count()).select_from(run).where(run.c.started_at == now)).scalar_one()


def get_run(connection: Connection, run_id: str) -> dict[str, Any] | None:
    row = connection.execute(select(run).where(run.c.id == run_id)).mappings().first()
    return {**row, "summary": orjson.loads(row["summary"]) if row["summary"] else None} if row else None


def last_runs(connection: Connection, limit: int = 10) -> list[dict[str, Any]]:
    rows = connection.execute(select(run).order_by(run.c.started_at.desc(), run.c.id.desc()).limit(limit)).mappings()
    return [{**row, "summary": orjson.loads(row["summary"]) if row["summary"] else None} for row in rows]


@dataclass(frozen=True)
class Cursor:
    """How far a feed was read. Values that Mautic sent: `last_id`, and `mark`, the date of that row or a time."""

    last_id: int = 0
    resume_from: int = 0
    mark: str | None = None


def get_cursor(connection: Connection, feed: str) -> Cursor | None:
    row = connection.execute(select(cursor).where(cursor.c.feed == feed)).first()
    return Cursor(row.last_id, row.resume_from, row.mark) if row else None


def put_cursor(connection: Connection, feed: str, value: Cursor) -> None:
    upsert(
        connection,
        cursor,
        [{"feed": feed, "last_id": value.last_id, "resume_from": value.resume_from, "mark": value.mark}],
    )


def drop_cursors(connection: Connection) -> None:
    connection.execute(delete(cursor))


def all_cursors(connection: Connection) -> dict[str, int]:
    return {row.feed: row.last_id for row in connection.execute(select(cursor).order_by(cursor.c.feed))}


def put_plan(connection: Connection, plan_id: str, run_id: str, now: int, totals: Mapping[str, Any]) -> None:
    connection.execute(
        insert(plan), {"id": plan_id, "run_id": run_id, "made_at": now, "totals": orjson.dumps(dict(totals)).decode()}
    )


def get_plan(connection: Connection, plan_id: str) -> dict[str, Any] | None:
    row = connection.execute(select(plan).where(plan.c.id == plan_id)).mappings().first()
    return {**row, "totals": orjson.loads(row["totals"])} if row else None


def plan_ids(connection: Connection) -> list[str]:
    query = select(plan.c.id).order_by(plan.c.made_at.desc(), plan.c.id.desc()).limit(20)
    return list(connection.execute(query).scalars())


def put_in_quarantine(
    connection: Connection, source: str, key: str, reason: str, excerpt: str, *, now: int, run_id: str
) -> bool:
    """Keep input that cannot be used. True when it is new, or new again after it was resolved."""
    reason = storable(reason)
    known = connection.execute(
        select(quarantine).where(quarantine.c.source == source, quarantine.c.key == key[:64])
    ).first()
    row = {
        "reason": reason,
        "excerpt": excerpt[:EXCERPT_CHARACTERS],
        "last_at": now,
        "run_id": run_id,
        "resolved_at": None,
    }
    if known is None:
        connection.execute(insert(quarantine), {"source": source, "key": key[:64], "first_at": now, **row})
        return True
    # A run may meet the same input more than once.
    times = known.times + (known.run_id != run_id)
    connection.execute(update(quarantine).where(quarantine.c.id == known.id).values(**row, times=times))
    return known.resolved_at is not None or known.reason != reason


def release_from_quarantine(connection: Connection, source: str, keys: list[str], now: int) -> None:
    for chunk in in_chunks(keys):
        connection.execute(
            update(quarantine)
            .where(quarantine.c.source == source, quarantine.c.key.in_(chunk), quarantine.c.resolved_at.is_(None))
            .values(resolved_at=now)
        )


def in_quarantine(connection: Connection, source: str | None = None) -> list[dict[str, Any]]:
    query = select(quarantine).where(quarantine.c.resolved_at.is_(None)).order_by(quarantine.c.id)
    if source:
        query = query.where(quarantine.c.source == source)
    return [dict(row) for row in connection.execute(query).mappings()]
