"""Which Mautic user a contact belongs to: unknown of everybody until the contact is read again"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # On MariaDB each statement is its own transaction: what a migration that was cut short has made stays.
    if not any(column["name"] == "owner_id" for column in sa.inspect(op.get_bind()).get_columns("contact")):
        op.add_column("contact", sa.Column("owner_id", sa.Integer(), nullable=True))
