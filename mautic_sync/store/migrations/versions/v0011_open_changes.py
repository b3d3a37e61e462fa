"""Open changes by person in an index of their own, which is small, so that a plan writes nothing among all that ever was"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

OPEN = sa.column("open_key").is_not(None)
CLOSED = sa.column("settled_at").is_not(None)


def upgrade() -> None:
    connection = op.get_bind()
    change = sa.table("change", sa.column("open_key"), sa.column("settled_at"), sa.column("planned_at"))
    closed_long_ago = change.c.open_key.is_(None) & change.c.settled_at.is_(None)
    connection.execute(sa.update(change).where(closed_long_ago).values(settled_at=change.c.planned_at))
    # On MariaDB an index has all rows, so that the one there is stays as it is; and each statement is its own
    # transaction: what a migration that was cut short has made stays.
    if connection.dialect.name in {"sqlite", "postgresql"}:
        op.drop_index("ix_change_person_id_open_key", table_name="change")
        op.create_index(
            "ix_change_person_id_open_key",
            "change",
            ["person_id", "open_key"],
            sqlite_where=OPEN,
            postgresql_where=OPEN,
        )
    if "ix_change_person_id" not in {index["name"] for index in sa.inspect(connection).get_indexes("change")}:
        op.create_index("ix_change_person_id", "change", ["person_id"], sqlite_where=CLOSED, postgresql_where=CLOSED)
