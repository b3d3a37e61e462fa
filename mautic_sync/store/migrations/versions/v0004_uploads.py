"""Files of addresses at ZeroBounce"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

PROSE = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}
INDEXES = {"upload": ["state"], "uploaded": ["upload_id"]}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("upload"):
        op.create_table(
            "upload",
            sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
            sa.Column("file_name", sa.String(length=64), nullable=False),
            sa.Column("file_id", sa.String(length=191), nullable=True),
            sa.Column("state", sa.String(length=16), nullable=False),
            sa.Column("addresses", sa.Integer(), nullable=False),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("run_id", sa.String(length=32), nullable=False),
            sa.Column("fetches", sa.Integer(), nullable=False),
            sa.Column("ended_at", sa.BigInteger(), nullable=True),
            sa.Column("error", PROSE, nullable=True),
            sa.PrimaryKeyConstraint("id"),
            **TABLE_OPTIONS,
        )
    if not present.has_table("uploaded"):
        op.create_table(
            "uploaded",
            sa.Column("address", sa.String(length=320), nullable=False),
            sa.Column("upload_id", sa.BigInteger(), nullable=False),
            sa.Column("answered", sa.Boolean(), nullable=False),
            sa.PrimaryKeyConstraint("address"),
            **TABLE_OPTIONS,
        )
    present.clear_cache()
    for table, columns in INDEXES.items():
        name = f"ix_{table}_{columns[0]}"
        if name not in {index["name"] for index in present.get_indexes(table)}:
            op.create_index(name, table, columns)
