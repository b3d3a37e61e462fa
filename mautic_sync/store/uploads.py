"""Files of addresses at ZeroBounce, from the intent to the last answer, and the credits that they hold.

A file's credits stand in the ledger of credits from its intent on, one for each address, at the time of the intent;
what turns out to cost nothing is taken back by a line of -1 at that same time. So budgets count it at once, and once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from mautic_sync.store.bulk import insert_many
from mautic_sync.store.engine import in_chunks
from mautic_sync.store.schema import credit, upload, uploaded

SENDING, SENT, DOUBTFUL, ANSWERED, DONE, RELEASED = "sending", "sent", "doubtful", "answered", "done", "released"
"""Stored and perhaps on its way; accepted under a file id; nobody knows; every address is answered for and only the
file is left at ZeroBounce; over; over without answers."""
OPEN = (SENDING, SENT, DOUBTFUL, ANSWERED)
UPLOADED, GIVEN_BACK = "uploaded", "given_back"
"""What the ledger of credits says of an address in a file: a credit is put aside; it was not needed."""


def begin(connection: Connection, file_name: str, addresses: Sequence[str], *, run_id: str, now: int) -> int:
    """The intent: before the file is sent. Its addresses are asked in no other way from now on."""
    row = {"file_name": file_name, "state": SENDING, "addresses": len(addresses), "at": now, "run_id": run_id}
    made: Any = connection.execute(insert(upload), {**row, "fetches": 0}).inserted_primary_key
    number = int(made[0])
    insert_many(connection, uploaded, [{"address": one, "upload_id": number, "answered": False} for one in addresses])
    _put_credits(connection, addresses, 1, UPLOADED, at=now, run_id=run_id)
    return number


def accept(connection: Connection, number: int, file_id: str) -> None:
    """ZeroBounce has it, under this id."""
    connection.execute(update(upload).where(upload.c.id == number).values(state=SENT, file_id=file_id, error=None))


def doubt(connection: Connection, number: int, reason: str) -> None:
    connection.execute(update(upload).where(upload.c.id == number).values(state=DOUBTFUL, error=reason))


def doubt_what_was_sending(connection: Connection) -> int:
    """Whose run ended before it could note an answer; only whoever holds the run lock knows. How many."""
    reason = "the worker was stopped while it sent the file"
    return connection.execute(
        update(upload).where(upload.c.state == SENDING).values(state=DOUBTFUL, error=reason)
    ).rowcount


def release(connection: Connection, number: int, reason: str, *, run_id: str, now: int) -> int:
    """It is not at ZeroBounce: its credits were not spent, and its addresses may be asked again. How many."""
    row = connection.execute(select(upload.c.at).where(upload.c.id == number)).one()
    addresses = unanswered(connection, number)
    _put_credits(connection, addresses, -1, GIVEN_BACK, at=row.at, run_id=run_id)
    _end(connection, number, RELEASED, now, reason)
    return len(addresses)


def finish(connection: Connection, number: int, now: int) -> None:
    """Every address is answered for, and the file is gone from ZeroBounce."""
    _end(connection, number, DONE, now, None)


def _end(connection: Connection, number: int, state: str, now: int, error: str | None) -> None:
    connection.execute(delete(uploaded).where(uploaded.c.upload_id == number))
    connection.execute(update(upload).where(upload.c.id == number).values(state=state, ended_at=now, error=error))


def _put_credits(
    connection: Connection, addresses: Iterable[str], credits_each: int, status: str, *, at: int, run_id: str
) -> None:
    line = {"run_id": run_id, "at": at, "credits": credits_each, "status": status}
    insert_many(connection, credit, [{**line, "address": address} for address in addresses])


# -- answers --------------------------------------------------------------------------------------------------------


def note_fetch(connection: Connection, number: int, error: str | None = None) -> None:
    """The result was looked through once more; `error` says what it lacked."""
    connection.execute(update(upload).where(upload.c.id == number).values(fetches=upload.c.fetches + 1, error=error))


def note_error(connection: Connection, number: int, error: str) -> None:
    connection.execute(update(upload).where(upload.c.id == number).values(error=error))


def note_answered(connection: Connection, number: int) -> None:
    """All its addresses are: they may be asked again when their verdicts say so, the file itself is still there."""
    connection.execute(delete(uploaded).where(uploaded.c.upload_id == number))
    connection.execute(update(upload).where(upload.c.id == number).values(state=ANSWERED, error=None))


def held_in(connection: Connection, number: int, addresses: Iterable[str]) -> dict[str, bool]:
    """Those of these addresses that the file holds → whether they were answered for."""
    found: dict[str, bool] = {}
    for chunk in in_chunks(sorted(addresses)):
        rows = connection.execute(
            select(uploaded.c.address, uploaded.c.answered).where(
                uploaded.c.upload_id == number, uploaded.c.address.in_(chunk)
            )
        )
        found.update({row.address: row.answered for row in rows})
    return found


def answer(connection: Connection, addresses: Sequence[str]) -> None:
    for chunk in in_chunks(addresses):
        connection.execute(update(uploaded).where(uploaded.c.address.in_(chunk)).values(answered=True))


def unanswered(connection: Connection, number: int) -> list[str]:
    query = select(uploaded.c.address).where(uploaded.c.upload_id == number, uploaded.c.answered.is_(False))
    return list(connection.execute(query.order_by(uploaded.c.address)).scalars())


# -- looking --------------------------------------------------------------------------------------------------------


def open_files(connection: Connection) -> list[Any]:
    """Rows of `upload` that are not over, the oldest first, with `waiting`: addresses not yet answered for."""
    waiting = (
        select(uploaded.c.upload_id, func.count().label("waiting"))
        .where(uploaded.c.answered.is_(False))
        .group_by(uploaded.c.upload_id)
        .subquery()
    )
    query = (
        select(upload, func.coalesce(waiting.c.waiting, 0).label("waiting"))
        .outerjoin(waiting, waiting.c.upload_id == upload.c.id)
        .where(upload.c.state.in_(OPEN))
        .order_by(upload.c.id)
    )
    return list(connection.execute(query))


def is_on_its_way(connection: Connection, address: str) -> bool:
    """Whether this address is in a file whose answer is not there."""
    return connection.execute(select(uploaded.c.address).where(uploaded.c.address == address)).first() is not None
