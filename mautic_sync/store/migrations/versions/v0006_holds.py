"""Persons who are held because a run was undone, and how often input could not be used"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("held"):
        op.create_table(
            "held",
            sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
            sa.Column("run_id", sa.String(length=32), nullable=False),
            sa.Column("undone", sa.String(length=32), nullable=False),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("digest", sa.String(length=32), nullable=False),
            sa.Column("rules", sa.String(length=64), nullable=False),
            sa.PrimaryKeyConstraint("person_id"),
            **TABLE_OPTIONS,
        )
    if not any(column["name"] == "times" for column in present.get_columns("quarantine")):
        op.add_column("quarantine", sa.Column("times", sa.Integer(), server_default="1", nullable=False))
