"""Actions that transitions set off, and since when somebody is hot"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

PROSE = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}
INDEXES = {
    "ix_action_person_id": ["person_id"],
    "ix_action_settled_run": ["settled_run"],
    "ix_action_in_order": ["state", "value", "id"],
}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("action"):
        op.create_table(
            "action",
            sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
            sa.Column("key", sa.String(length=64), nullable=False),
            sa.Column("person_id", sa.BigInteger(), nullable=False),
            sa.Column("rule", sa.String(length=191), nullable=False),
            sa.Column("occasion", sa.String(length=200), nullable=False),
            sa.Column("todo", PROSE, nullable=False),
            sa.Column("done", PROSE, nullable=False),
            sa.Column("state", sa.String(length=16), nullable=False),
            sa.Column("value", sa.Integer(), nullable=False),
            sa.Column("attempts", sa.Integer(), nullable=False),
            sa.Column("run_id", sa.String(length=32), nullable=False),
            sa.Column("planned_at", sa.BigInteger(), nullable=False),
            sa.Column("sent_at", sa.BigInteger(), nullable=True),
            sa.Column("settled_at", sa.BigInteger(), nullable=True),
            sa.Column("settled_run", sa.String(length=32), nullable=True),
            sa.Column("error", PROSE, nullable=True),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("key", name="uq_action_key"),
            **TABLE_OPTIONS,
        )
    present.clear_cache()
    made = {index["name"] for index in present.get_indexes("action")}
    for name, columns in INDEXES.items():
        if name not in made:
            op.create_index(name, "action", columns)
    if not any(column["name"] == "hot_since" for column in present.get_columns("decision")):
        op.add_column("decision", sa.Column("hot_since", sa.BigInteger(), nullable=True))
