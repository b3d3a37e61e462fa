"""Verdicts and the credits that they cost; credits are an append-only ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from mautic_sync.domain.validation import Verdict
from mautic_sync.store.engine import rows_listed, upsert
from mautic_sync.store.schema import credit, verdict
from mautic_sync.store.text import dump


def get_verdict(connection: Connection, address: str) -> Verdict | None:
    row = connection.execute(select(verdict).where(verdict.c.address == address)).first()
    return None if row is None else _verdict(row)


def _verdict(row: Any) -> Verdict:
    return Verdict(
        address=row.address,
        status=row.status,
        sub_status=row.sub_status,
        at=row.at,
        attempts=row.attempts,
        did_you_mean=row.did_you_mean,
        raw=orjson.loads(row.raw),
    )


def verdicts_of(connection: Connection, addresses: Sequence[str]) -> dict[str, tuple[Verdict, str]]:
    """Address → the verdict about it, and the run that asked for it."""
    rows = rows_listed(connection, _VERDICTS, verdict.c.address, addresses) if addresses else []
    return {row.address: (_verdict(row), row.run_id) for row in rows}


_VERDICTS = select(verdict)


def put_verdict(connection: Connection, one: Verdict, next_at: int | None, run_id: str) -> None:
    upsert(
        connection,
        verdict,
        [
            {
                "address": one.address,
                "status": one.status,
                "sub_status": one.sub_status,
                "did_you_mean": one.did_you_mean or "",
                "at": one.at,
                "run_id": run_id,
                "attempts": one.attempts,
                "next_at": next_at,
                "raw": dump(dict(one.raw)),
            }
        ],
    )


def put_next_at(connection: Connection, address: str, next_at: int | None) -> None:
    connection.execute(update(verdict).where(verdict.c.address == address).values(next_at=next_at))


def take_back(connection: Connection, address: str) -> None:
    """Forget a verdict that was only noted before a question which nobody looked at."""
    connection.execute(delete(verdict).where(verdict.c.address == address))


def all_verdicts(connection: Connection, after: str, limit: int = 1000) -> Sequence[Verdict]:
    """Verdicts by address, for a change of policy."""
    query = select(verdict).where(verdict.c.address > after).order_by(verdict.c.address).limit(limit)
    return [_verdict(row) for row in connection.execute(query)]


def put_credit(connection: Connection, row: Mapping[str, Any]) -> None:
    connection.execute(insert(credit), dict(row))


def credits_since(connection: Connection, since: int) -> int:
    query = select(func.coalesce(func.sum(credit.c.credits), 0)).where(credit.c.at >= since)
    return int(connection.execute(query).scalar() or 0)
