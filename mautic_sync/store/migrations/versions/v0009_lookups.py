"""Indexes for what every run asks, so that its answer costs the same however much a store has come to hold"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# The table and the columns of each new index, and the index whose place it takes.
INDEXES = (
    ("ledger", ("person_id", "delta"), "ix_ledger_person_id"),
    ("change", ("person_id", "open_key"), "ix_change_person_id"),
    ("evidence", ("person_id", "matcher", "at"), "ix_evidence_person_id"),
    ("evidence", ("activity_id",), None),
    ("transition", ("baseline", "at"), None),
    ("contact", ("vanished_at",), None),
)
# Where an index can leave rows out: those that nobody looks for along it.
ONLY = {"ix_contact_vanished_at": sa.column("vanished_at").is_not(None)}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    for table, columns, former in INDEXES:
        names = {index["name"] for index in present.get_indexes(table)}
        name = "_".join(("ix", table, *columns))
        if name not in names:
            only = ONLY.get(name)
            op.create_index(name, table, list(columns), sqlite_where=only, postgresql_where=only)
        if former is not None and former in names:
            op.drop_index(former, table_name=table)
