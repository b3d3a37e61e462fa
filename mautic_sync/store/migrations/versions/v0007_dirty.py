"""Whose signals changed since they were decided: a table of its own instead of a column of their contacts"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("dirty"):
        op.create_table(
            "dirty",
            sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
            sa.PrimaryKeyConstraint("person_id"),
            **TABLE_OPTIONS,
        )
    if not any(column["name"] == "dirty" for column in present.get_columns("contact")):
        return
    op.execute("DELETE FROM dirty")
    op.execute("INSERT INTO dirty (person_id) SELECT person_id FROM contact WHERE dirty = 1 AND vanished_at IS NULL")
    if any(index["name"] == "ix_contact_dirty" for index in present.get_indexes("contact")):
        op.drop_index("ix_contact_dirty", table_name="contact")
    # Not every SQLite that Python is built with can drop a column: the table is copied.
    with op.batch_alter_table("contact") as batch_op:
        batch_op.drop_column("dirty")
