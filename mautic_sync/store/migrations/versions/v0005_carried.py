"""What old activity added up to, when its rows are gone"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

PROSE = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    if not sa.inspect(op.get_bind()).has_table("carried"):
        op.create_table(
            "carried",
            sa.Column("person_id", ROW_ID, autoincrement=False, nullable=False),
            sa.Column("folded", PROSE, nullable=False),
            sa.PrimaryKeyConstraint("person_id"),
            **TABLE_OPTIONS,
        )
