-- Schema 3: how many calls of a key run at once, and how often they start.

-- state 5 of the queue: so many of its key (`parked`) run already
-- bounds: 0 it has none, 1 it has some, 2 it has some and counts as running
ALTER TABLE cp_queue ADD COLUMN bounds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cp_queue ADD COLUMN parked INTEGER;
CREATE INDEX cp_queue_parked ON cp_queue (parked, prio, seq) WHERE parked IS NOT NULL;
CREATE INDEX cp_queue_parked_lane ON cp_queue (lane) WHERE state = 5;

CREATE TABLE cp_bound (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, running INTEGER NOT NULL);

-- The bounds of a call that has not ended.
CREATE TABLE cp_bounded (
    seq INTEGER NOT NULL,
    bound INTEGER NOT NULL,
    max INTEGER NOT NULL,
    PRIMARY KEY (seq, bound)
) WITHOUT ROWID;

-- due: when the next call of a rate may be stored and start at once, but for the burst
CREATE TABLE cp_rate (key TEXT NOT NULL PRIMARY KEY, due INTEGER NOT NULL) WITHOUT ROWID;
