-- Schema 2: a held queue beside the sideline, and notes about targets.

-- A lane has two lines: the sideline's, with the columns it always had, and the held one's. In the queue and in memory
-- the held line is named by the lane's number, negated; a target's held queue likewise.
ALTER TABLE cp_target ADD COLUMN held_vtime INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cp_lane ADD COLUMN held_pass INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cp_lane ADD COLUMN held_active INTEGER NOT NULL DEFAULT 0;
CREATE INDEX cp_lane_held ON cp_lane (target, held_pass) WHERE held_active = 1;

-- hold: until when somebody is kept waiting. While a row is ready in the held line, `due` is the same time.
-- size: of the request with its headers
ALTER TABLE cp_queue ADD COLUMN hold INTEGER;
ALTER TABLE cp_queue ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE cp_queue SET size = (SELECT length(c.request) FROM cp_call c WHERE c.seq = cp_queue.seq);

CREATE TABLE cp_note (target TEXT NOT NULL PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
