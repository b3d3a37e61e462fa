"""Who is to be decided when, in a table that is only added to: the index on it was written to all over the file"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

MARIADB = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value for dialect in ("mysql", "mariadb") for name, value in MARIADB.items()
}
INDEX = "ix_decision_due_at"


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    present = sa.inspect(op.get_bind())
    if not present.has_table("due"):
        op.create_table(
            "due",
            *(
                sa.Column(name, sa.BigInteger(), primary_key=True, autoincrement=False)
                for name in ("due_at", "decided_at", "person_id")
            ),
            sqlite_with_rowid=False,
            **TABLE_OPTIONS,
        )
    op.execute("DELETE FROM due")
    op.execute(
        "INSERT INTO due (due_at, decided_at, person_id) "
        "SELECT due_at, 0, person_id FROM decision WHERE due_at IS NOT NULL ORDER BY due_at, person_id"
    )
    if any(index["name"] == INDEX for index in present.get_indexes("decision")):
        op.drop_index(INDEX, table_name="decision")
