-- What was said and offered, who is in which room, and up to where everyone has been told.
-- Users are the ids of the accounts: never used twice. Times are microseconds since 1970, UTC.

CREATE TABLE events (
    -- The place among all events, also those that are not kept here.
    seq       INTEGER PRIMARY KEY,
    -- 0 a message, 1 an offer.
    kind      INTEGER NOT NULL,
    sender    INTEGER NOT NULL,
    sent_by   TEXT    NOT NULL,
    -- The user that it is for, if it is for one.
    receiver  INTEGER,
    -- The room that it was said in, if it was.
    room      TEXT,
    -- What stands in `to`.
    addressee TEXT    NOT NULL,
    -- The text of a message, the identifier of an offer.
    body      TEXT    NOT NULL,
    time      INTEGER NOT NULL
) STRICT;

CREATE INDEX events_by_receiver ON events (receiver, seq) WHERE receiver IS NOT NULL;
CREATE INDEX events_by_pair ON events (sender, receiver, seq) WHERE receiver IS NOT NULL;
CREATE INDEX events_by_room ON events (room, seq) WHERE room IS NOT NULL;

-- The offers that are open. One that is answered or has expired is gone, and its event with it.
CREATE TABLE offers (
    -- Random, hex.
    offer      TEXT    PRIMARY KEY,
    -- The place of its event.
    event      INTEGER NOT NULL UNIQUE,
    offered_by INTEGER NOT NULL,
    offered_to INTEGER NOT NULL,
    -- Where the file is, as its sender sees it.
    path       TEXT    NOT NULL,
    -- What the file was when it was offered.
    version    TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    expires    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX offers_by_sender ON offers (offered_by);
CREATE INDEX offers_by_receiver ON offers (offered_to, event);
CREATE INDEX offers_by_end ON offers (expires);

CREATE TABLE members (
    room  TEXT    NOT NULL,
    user  INTEGER NOT NULL,
    name  TEXT    NOT NULL,
    -- The user hears what was said after this.
    since INTEGER NOT NULL,
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_user ON members (user);

CREATE TABLE inboxes (
    user INTEGER PRIMARY KEY,
    -- What is up to here was sent to the user.
    told INTEGER NOT NULL,
    -- The user is connected and is sent everything as it is stored: `told` is behind. Were the
    -- server to die now, all that is stored was sent.
    live INTEGER NOT NULL
) STRICT;

-- Places are given out from memory, in blocks: none is given out twice, whatever happens.
CREATE TABLE counter (
    reserved INTEGER NOT NULL
) STRICT;

INSERT INTO counter VALUES (0);
