-- Ages by the uptime: the milliseconds that servers have run on this database, all of them together.
-- Nobody sets that clock, so nothing is dropped because the one on the wall is wrong.

ALTER TABLE counter ADD COLUMN uptime INTEGER NOT NULL DEFAULT 0;

-- The uptime at which the event was stored.
ALTER TABLE events ADD COLUMN uptime INTEGER NOT NULL DEFAULT 0;

-- The uptime at which the offer is removed; those that are there have a week from now on.
ALTER TABLE offers ADD COLUMN ends INTEGER NOT NULL DEFAULT 604800000;

DROP INDEX offers_by_end;
CREATE INDEX offers_by_end ON offers (ends);

-- What a user has said counts for that user.
CREATE INDEX events_by_sender ON events (sender, seq);

-- An offer is there if and only if its event is.
DELETE FROM offers WHERE event NOT IN (SELECT seq FROM events WHERE kind = 1);
DELETE FROM events WHERE kind = 1 AND seq NOT IN (SELECT event FROM offers);

CREATE TRIGGER offer_ends_with_its_event AFTER DELETE ON events WHEN OLD.kind = 1
BEGIN
    DELETE FROM offers WHERE event = OLD.seq;
END;

CREATE TRIGGER event_ends_with_its_offer AFTER DELETE ON offers
BEGIN
    DELETE FROM events WHERE seq = OLD.event;
END;

-- Each start of a server begins an epoch. A `seq` that a client brings back counts if it was given
-- out in an epoch that is known here, before the next one began: not if it comes from a server that
-- went on where this database was restored to an earlier state.
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY,
    -- Random, hex.
    epoch  TEXT    NOT NULL UNIQUE,
    -- The places up to here were given out before.
    after  INTEGER NOT NULL
) STRICT;
