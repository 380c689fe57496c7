-- Users, shared folders, who may do what in them, and tokens.
-- Times are seconds since 1970, UTC. Limits that are NULL do not exist.

CREATE TABLE users (
    -- Never used twice, so that a session or token of a removed user is nobody's.
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT    NOT NULL UNIQUE,
    -- A PHC string: algorithm, cost, salt and hash.
    password TEXT    NOT NULL,
    admin    INTEGER NOT NULL DEFAULT FALSE,
    disabled INTEGER NOT NULL DEFAULT FALSE,
    bytes    INTEGER,
    files    INTEGER,
    created  INTEGER NOT NULL
) STRICT;

CREATE TABLE folders (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT    NOT NULL UNIQUE,
    bytes   INTEGER,
    files   INTEGER,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE grants (
    folder INTEGER NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    user   INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    rights TEXT    NOT NULL,
    PRIMARY KEY (folder, user)
) STRICT;

CREATE INDEX grants_by_user ON grants (user);

CREATE TABLE tokens (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    user    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- BLAKE3 of the token. The token itself is 32 random bytes, so a quick hash keeps it secret.
    hash    BLOB    NOT NULL UNIQUE,
    label   TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT;

CREATE INDEX tokens_by_user ON tokens (user);
