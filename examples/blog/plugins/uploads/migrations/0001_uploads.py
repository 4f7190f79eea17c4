"""Create the table of images."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "blog_upload",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("shown", sa.String(100), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("blog_upload_owner", "blog_upload", ["owner_id", "created"])


def downgrade() -> None:
    op.drop_table("blog_upload")
