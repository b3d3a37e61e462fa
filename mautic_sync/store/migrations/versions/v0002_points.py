"""The account of points: what was granted, how a grant is found again in Mautic, and what scores are made of"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

PROSE = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("tally"):
        op.create_table(
            "tally",
            sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
            sa.Column("counts", PROSE, nullable=False),
            sa.PrimaryKeyConstraint("person_id"),
            **TABLE_OPTIONS,
        )
    if not present.has_table("ledger"):
        op.create_table(
            "ledger",
            sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
            sa.Column("person_id", sa.BigInteger(), nullable=False),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("run_id", sa.String(length=32), nullable=False),
            sa.Column("change_id", sa.BigInteger(), nullable=False),
            sa.Column("event_key", sa.String(length=64), nullable=False),
            sa.Column("delta", sa.Integer(), nullable=False),
            sa.Column("reason", PROSE, nullable=False),
            sa.PrimaryKeyConstraint("id"),
            **TABLE_OPTIONS,
        )
    present.clear_cache()
    if not any(index["name"] == "ix_ledger_person_id" for index in present.get_indexes("ledger")):
        op.create_index("ix_ledger_person_id", "ledger", ["person_id"])
    for table, column in (
        ("decision", sa.Column("scores", PROSE, server_default="{}", nullable=False)),
        ("decision", sa.Column("score_day", sa.Integer(), nullable=True)),
        ("decision", sa.Column("flags", PROSE, server_default="[]", nullable=False)),
        ("change", sa.Column("event_key", sa.String(length=64), nullable=True)),
        ("change", sa.Column("log_above", sa.BigInteger(), nullable=True)),
    ):
        if not any(one["name"] == column.name for one in present.get_columns(table)):
            op.add_column(table, column)
    indexes = {index["name"]: index for index in present.get_indexes("activity")}
    if "ix_activity_type" in indexes:  # nothing looks for a type alone
        op.drop_index("ix_activity_type", "activity")
    if op.get_bind().dialect.name in {"sqlite", "postgresql"} and not indexes["ix_activity_waiting_id"].get(
        "dialect_options"
    ):
        # Nearly nobody waits: an index of those who do costs next to nothing.
        waits = sa.text("waiting_id IS NOT NULL")
        op.drop_index("ix_activity_waiting_id", "activity")
        op.create_index(
            "ix_activity_waiting_id", "activity", ["waiting_id"], sqlite_where=waits, postgresql_where=waits
        )
