"""accounts, devices, versions

Revision: 0001, after:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
oldest_code = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_digest", sa.LargeBinary(), nullable=False),
        sa.Column("password_salt", sa.LargeBinary(), nullable=False),
        sa.Column("password_n", sa.Integer(), nullable=False),
        sa.Column("password_r", sa.Integer(), nullable=False),
        sa.Column("password_p", sa.Integer(), nullable=False),
        sa.Column("client_salt_seed", sa.Text(), nullable=False),
        sa.Column("kdf_n", sa.Integer(), nullable=False),
        sa.Column("kdf_r", sa.Integer(), nullable=False),
        sa.Column("kdf_p", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kdf_n BETWEEN 16384 AND 1048576", name=op.f("ck_accounts_kdf_n")),
        sa.CheckConstraint("kdf_p BETWEEN 1 AND 4", name=op.f("ck_accounts_kdf_p")),
        sa.CheckConstraint("kdf_r = 8", name=op.f("ck_accounts_kdf_r")),
        sa.CheckConstraint(
            "length(client_salt_seed) = 64", name=op.f("ck_accounts_client_salt_seed")
        ),
        sa.CheckConstraint("length(email) BETWEEN 3 AND 254", name=op.f("ck_accounts_email")),
        sa.CheckConstraint("length(epoch) = 32", name=op.f("ck_accounts_epoch")),
        sa.CheckConstraint(
            "length(password_digest) = 32", name=op.f("ck_accounts_password_digest")
        ),
        sa.CheckConstraint("length(password_salt) >= 16", name=op.f("ck_accounts_password_salt")),
        sa.CheckConstraint("password_n > 1", name=op.f("ck_accounts_password_n")),
        sa.CheckConstraint("password_p > 0", name=op.f("ck_accounts_password_p")),
        sa.CheckConstraint("password_r > 0", name=op.f("ck_accounts_password_r")),
        sa.CheckConstraint(
            "sequence BETWEEN 0 AND 9007199254740991", name=op.f("ck_accounts_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("decoy_key", sa.LargeBinary(), nullable=False),
        sa.Column("history_depth", sa.Integer(), nullable=False),
        sa.Column("probed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("history_depth >= 1", name=op.f("ck_installation_history_depth")),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_single")),
        sa.CheckConstraint("length(decoy_key) = 32", name=op.f("ck_installation_decoy_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "devices",
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("token_used_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_sequence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "applied_sequence BETWEEN 0 AND 9007199254740991",
            name=op.f("ck_devices_applied_sequence"),
        ),
        sa.CheckConstraint("length(device_id) BETWEEN 1 AND 64", name=op.f("ck_devices_device_id")),
        sa.CheckConstraint("length(name) <= 128", name=op.f("ck_devices_name")),
        sa.CheckConstraint("length(token_hash) = 32", name=op.f("ck_devices_token_hash")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_devices_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "device_id", name=op.f("pk_devices")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_devices_token_hash")),
    )
    op.create_table(
        "versions",
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("hmac", sa.LargeBinary(), nullable=False),
        sa.Column("encrypted_wallet", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "length(encrypted_wallet) >= 1", name=op.f("ck_versions_encrypted_wallet")
        ),
        sa.CheckConstraint("length(hmac) BETWEEN 1 AND 256", name=op.f("ck_versions_hmac")),
        sa.CheckConstraint(
            "sequence BETWEEN 1 AND 9007199254740991", name=op.f("ck_versions_sequence")
        ),
        sa.CheckConstraint(
            "length(device_id) BETWEEN 1 AND 64", name=op.f("ck_versions_device_id")
        ),
        sa.CheckConstraint("slot >= 0", name=op.f("ck_versions_slot")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_versions_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "slot", name=op.f("pk_versions")),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("versions")
    op.drop_table("devices")
    op.drop_table("installation")
    op.drop_table("accounts")
