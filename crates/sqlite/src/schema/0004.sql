-- Schema 4: what installations had before, pauses of single schedules, and how far runs are.

-- since: the first revision with what the row has now, if `kept` is its revision: a release that keeps no past leaves
-- `kept` behind.
ALTER TABLE cp_installation ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cp_installation ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;

-- What an installation had from revision `first` to `last`. used: when it was changed, or the last execution that ran
-- with it ended, whichever is later
CREATE TABLE cp_past (
    installation BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    used INTEGER NOT NULL,
    version TEXT NOT NULL,
    config TEXT NOT NULL,
    connections TEXT NOT NULL,
    PRIMARY KEY (installation, first)
) WITHOUT ROWID;
CREATE INDEX cp_past_used ON cp_past (used);

CREATE TABLE cp_past_secret (
    installation BLOB NOT NULL,
    first INTEGER NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (installation, first, name)
) WITHOUT ROWID;

-- pin: the revision that it is to run with, if not the present one; progress: of the present attempt, as JSON
ALTER TABLE cp_queue ADD COLUMN pin INTEGER;
ALTER TABLE cp_queue ADD COLUMN progress TEXT;
CREATE INDEX cp_queue_pin ON cp_queue (flow) WHERE pin IS NOT NULL;

-- paused: since when it rests apart from its installation
ALTER TABLE cp_schedule ADD COLUMN paused INTEGER;
