"""which older versions of the server can go on

Revision: 0003, after: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
oldest_code = "0002"


def upgrade() -> None:
    """Bring the schema to this revision."""
    with op.batch_alter_table("installation", schema=None) as batch_op:
        batch_op.add_column(sa.Column("schema_revision", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("oldest_code", sa.Text(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        # Ciphertext: to compress it costs each push time, and saves little.
        op.execute("ALTER TABLE versions ALTER encrypted_wallet SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Take the schema back to the one before."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE versions ALTER encrypted_wallet SET STORAGE EXTENDED")
    with op.batch_alter_table("installation", schema=None) as batch_op:
        batch_op.drop_column("oldest_code")
        batch_op.drop_column("schema_revision")
