-- Schema 1. Written once; a later change is a new file.

-- What must survive that no row tells: `next_seq`, below which every sequence number has been used.
CREATE TABLE cp_meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE cp_target (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, vtime INTEGER NOT NULL);

-- One per target and customer. A lane is active while it may have ready rows.
CREATE TABLE cp_lane (
    id INTEGER PRIMARY KEY,
    target INTEGER NOT NULL,
    customer TEXT NOT NULL,
    pass INTEGER NOT NULL,
    active INTEGER NOT NULL,
    UNIQUE (target, customer)
);
CREATE INDEX cp_lane_next ON cp_lane (target, pass) WHERE active = 1;

CREATE TABLE cp_flow (
    id INTEGER PRIMARY KEY,
    installation BLOB NOT NULL,
    name TEXT NOT NULL,
    customer TEXT NOT NULL,
    UNIQUE (installation, name)
);
CREATE INDEX cp_flow_customer ON cp_flow (customer);
CREATE INDEX cp_flow_name ON cp_flow (name);

-- Every call, from when it was accepted until retention removes it; never changed. `head` is the envelope without the
-- request and stands before it, so that reading it touches no overflow pages.
CREATE TABLE cp_call (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    lane INTEGER NOT NULL,
    flow INTEGER,
    created INTEGER NOT NULL,
    head BLOB NOT NULL,
    request BLOB NOT NULL
);
CREATE UNIQUE INDEX cp_call_id ON cp_call (id);
CREATE INDEX cp_call_flow ON cp_call (flow, seq) WHERE flow IS NOT NULL;

-- The calls that have not ended: narrow, hot, gone at the end.
-- state: 0 ready, 1 leased, 2 delayed, 4 behind its ordering key, 9 unreadable (never delivered)
-- due: the end of the lease or of the delay; prio: the priority, negated, so that both parts of the order rise
-- since: ready since; for state 4 the time before which it is not delivered
-- stop: somebody wants it to stop; close: 0 or the reason to close it (1 exhausted, 2 expired, 3 cancelled)
CREATE TABLE cp_queue (
    seq INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    flow INTEGER,
    prio INTEGER NOT NULL,
    state INTEGER NOT NULL,
    due INTEGER,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    repeatable INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    close INTEGER NOT NULL,
    okey INTEGER,
    since INTEGER NOT NULL,
    started INTEGER,
    expires INTEGER,
    note TEXT
);
CREATE INDEX cp_queue_ready ON cp_queue (lane, prio, seq) WHERE state = 0;
CREATE INDEX cp_queue_due ON cp_queue (due) WHERE due IS NOT NULL;
CREATE INDEX cp_queue_okey ON cp_queue (okey, seq) WHERE okey IS NOT NULL;
CREATE INDEX cp_queue_flow ON cp_queue (flow, seq) WHERE flow IS NOT NULL;

-- How calls ended. state: 1 completed or succeeded, 2 dead or failed, 3 unknown, 4 cancelled, 5 expired
CREATE TABLE cp_done (
    seq INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started INTEGER,
    finished INTEGER NOT NULL,
    note TEXT,
    reply BLOB
);
CREATE INDEX cp_done_finished ON cp_done (finished);
CREATE INDEX cp_done_dead ON cp_done (seq) WHERE state = 2;

CREATE TABLE cp_key (
    n INTEGER PRIMARY KEY,
    scope BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    id BLOB NOT NULL,
    expires INTEGER NOT NULL
);
CREATE UNIQUE INDEX cp_key_scope ON cp_key (scope);
CREATE INDEX cp_key_expires ON cp_key (expires);

CREATE TABLE cp_log (
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    audience TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (seq, n)
) WITHOUT ROWID;

CREATE TABLE cp_flow_state (flow INTEGER PRIMARY KEY, version INTEGER NOT NULL, value TEXT NOT NULL);

CREATE TABLE cp_schedule (
    installation BLOB NOT NULL,
    flow TEXT NOT NULL,
    customer TEXT NOT NULL,
    spec TEXT NOT NULL,
    next INTEGER,
    PRIMARY KEY (installation, flow)
) WITHOUT ROWID;
CREATE INDEX cp_schedule_next ON cp_schedule (next) WHERE next IS NOT NULL;

CREATE TABLE cp_installation (
    id BLOB NOT NULL PRIMARY KEY,
    customer TEXT NOT NULL,
    integration TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    attention TEXT,
    config TEXT NOT NULL,
    connections TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
);
CREATE INDEX cp_installation_age ON cp_installation (created, id);
CREATE INDEX cp_installation_customer ON cp_installation (customer, created, id);

CREATE TABLE cp_secret (
    installation BLOB NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (installation, name)
) WITHOUT ROWID;

CREATE TABLE cp_connection (
    id BLOB NOT NULL PRIMARY KEY,
    customer TEXT NOT NULL,
    connector TEXT NOT NULL,
    label TEXT NOT NULL,
    scheme TEXT NOT NULL,
    variables TEXT NOT NULL,
    health TEXT NOT NULL,
    sealed BLOB,
    generation INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
);
CREATE INDEX cp_connection_age ON cp_connection (created, id);
CREATE INDEX cp_connection_customer ON cp_connection (customer, created, id);

CREATE TABLE cp_customer (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE cp_data_key (
    customer TEXT NOT NULL,
    number INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (customer, number)
) WITHOUT ROWID;
