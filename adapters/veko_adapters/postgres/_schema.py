"""The tables and the function that writes; `%` stands for the prefix.

Namespaces and keys are `bytea`, since `text` cannot hold NUL. The row of `head` is locked first, so
transactions are carried out one after the other, and revisions have no gaps and grow in the order
of the commits (with a sequence a later number may be committed first).
"""

from __future__ import annotations

from typing import Final

from .._storage import LOGGED

__all__ = ["FUNCTION", "TABLES"]

TABLES: Final = """
CREATE TABLE IF NOT EXISTS %_head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), revision bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO %_head (revision) VALUES (0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS %_entry (
    namespace bytea NOT NULL, key bytea NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (namespace, key)
);
CREATE TABLE IF NOT EXISTS %_change (
    revision bigint PRIMARY KEY, token text NOT NULL UNIQUE, changes bytea NOT NULL
);
"""

FUNCTION: Final = """
CREATE OR REPLACE FUNCTION %_write_1(
    this_token text, these_changes bytea,
    cleared bytea[], delete_in bytea[], deleted bytea[], set_in bytea[], keys bytea[], vals bytea[],
    compare boolean, expected bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    next_revision bigint;
    found_revision bigint;
BEGIN
    SELECT revision + 1 INTO STRICT next_revision FROM %_head FOR UPDATE;
    SELECT revision INTO found_revision FROM %_change WHERE token = this_token;
    IF found_revision IS NOT NULL THEN
        RETURN found_revision;
    END IF;
    IF compare AND expected IS DISTINCT FROM (
        SELECT value FROM %_entry
        WHERE namespace = coalesce(set_in[1], delete_in[1]) AND key = coalesce(keys[1], deleted[1])
    ) THEN
        RETURN -1;
    END IF;
    IF cardinality(cleared) > 0 THEN
        DELETE FROM %_entry WHERE namespace = ANY (cleared);
    END IF;
    IF cardinality(deleted) > 0 THEN
        DELETE FROM %_entry USING unnest(delete_in, deleted) AS gone (namespace, key)
        WHERE %_entry.namespace = gone.namespace AND %_entry.key = gone.key;
    END IF;
    IF cardinality(keys) > 0 THEN
        INSERT INTO %_entry SELECT * FROM unnest(set_in, keys, vals)
        ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value;
    END IF;
    UPDATE %_head SET revision = next_revision;
    INSERT INTO %_change VALUES (next_revision, this_token, these_changes);
    IF next_revision % 1000 = 0 THEN
        DELETE FROM %_change WHERE revision <= next_revision - LOGGED;
    END IF;
    PERFORM pg_notify('%', '');
    RETURN next_revision;
END
$$
""".replace("LOGGED", str(LOGGED))
