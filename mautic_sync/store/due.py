"""Who is to be decided when: of each decision that has a `due_at` there is a row of that time.

Rows are added as decisions are stored, those of one run and one time side by side, and none is touched before its time
has come; it goes then, if its decision has another time. An index on the decision itself would be written to all over
the file, for each person on a page of their own.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, delete, exists, insert, select

from mautic_sync.store.engine import upsert_rows
from mautic_sync.store.people import mark_where
from mautic_sync.store.schema import contact, decision, due

_COLUMNS = tuple(column.name for column in due.columns)
_MEANT = and_(decision.c.person_id == due.c.person_id, decision.c.due_at == due.c.due_at)


def note(connection: Connection, rows: Collection[tuple[int, int, int]]) -> None:
    """Rows of due_at, decided_at and person_id: of each decision whose `due_at` is another one than before."""
    upsert_rows(connection, due, _COLUMNS, sorted(rows))


def mark(connection: Connection, now: int) -> None:
    """Whoever time alone may have changed is decided again."""
    came = due.c.due_at <= now
    persons = select(due.c.person_id).select_from(due.join(decision, _MEANT)).where(came)
    mark_where(connection, contact.c.person_id.in_(persons))
    connection.execute(delete(due).where(came, ~exists().where(_MEANT)))


def renew(connection: Connection) -> None:
    """Make all rows anew of the decisions: those that mean nothing any more go before their time."""
    connection.execute(delete(due))
    columns = [decision.c[name] for name in _COLUMNS]
    rows = select(*columns).where(decision.c.due_at.is_not(None)).order_by(*columns)
    connection.execute(insert(due).from_select(_COLUMNS, rows))
