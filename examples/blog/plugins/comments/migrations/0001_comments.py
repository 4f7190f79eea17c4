"""Create the table of comments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "blog_comment",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("author_id", sa.String(64), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_index("blog_comment_post", "blog_comment", ["post_id", "id"])
    op.create_index("blog_comment_author", "blog_comment", ["author_id", "created"])


def downgrade() -> None:
    op.drop_table("blog_comment")
