//! Every statement, in one place, so that tests can prepare and explain all of them.
//!
//! Partial indexes are used only where the query repeats their condition literally, so states stand in the text and are
//! never bound.

macro_rules! statements {
    ($list:ident: $( $name:ident = $sql:expr; )+) => {
        $( pub(crate) const $name: &str = $sql; )+
        /// Names and texts of the statements above.
        #[cfg(test)]
        pub(crate) const $list: &[(&str, &str)] = &[$( (stringify!($name), $name), )+];
    };
}

/// The columns of [`Row`](crate::ledger::Row), in its order.
macro_rules! row {
    ($rest:literal) => {
        concat!(
            "SELECT seq, lane, flow, state, fence, attempt, max_attempts, repeatable, begun, stop, close, okey, since, \
             started, note, hold, bounds FROM cp_queue ",
            $rest
        )
    };
}

/// The columns of [`Seen`](crate::repos::Seen), in its order.
macro_rules! seen {
    ($rest:literal) => {
        concat!(
            "SELECT c.head, q.state, q.due, q.attempt, q.stop, q.close, q.started, q.note, d.state, d.attempt, d.started, \
             d.finished, d.note, d.reply, q.progress FROM cp_call c LEFT JOIN cp_queue q ON q.seq = c.seq \
             LEFT JOIN cp_done d ON d.seq = c.seq ",
            $rest
        )
    };
}

// What the writer runs for every call.
statements! { HOT:
    TARGET_BY_NAME = "SELECT id FROM cp_target WHERE name = ?1";
    TARGET_ADD = "INSERT INTO cp_target (name, vtime) VALUES (?1, 0)";
    TARGET_TIME = "SELECT vtime FROM cp_target WHERE id = ?1";
    TARGET_SET = "UPDATE cp_target SET vtime = ?2 WHERE id = ?1";
    HELD_TIME = "SELECT held_vtime FROM cp_target WHERE id = ?1";
    HELD_TIME_SET = "UPDATE cp_target SET held_vtime = ?2 WHERE id = ?1";
    LANE_BY_NAME = "SELECT id FROM cp_lane WHERE target = ?1 AND customer = ?2";
    LANE_BY_ID = "SELECT target, pass, active FROM cp_lane WHERE id = ?1";
    LANE_ADD = "INSERT INTO cp_lane (target, customer, pass, active) VALUES (?1, ?2, 0, 0)";
    LANE_SET = "UPDATE cp_lane SET pass = ?2, active = ?3 WHERE id = ?1";
    LANES_ACTIVE = "SELECT count(*) FROM cp_lane WHERE target = ?1 AND active = 1";
    LANES_NEXT = "SELECT id, pass FROM cp_lane WHERE target = ?1 AND active = 1 ORDER BY pass, id LIMIT ?2";
    HELD_BY_ID = "SELECT target, held_pass, held_active FROM cp_lane WHERE id = ?1";
    HELD_SET = "UPDATE cp_lane SET held_pass = ?2, held_active = ?3 WHERE id = ?1";
    HELD_ACTIVE = "SELECT count(*) FROM cp_lane WHERE target = ?1 AND held_active = 1";
    HELD_NEXT = "SELECT id, held_pass FROM cp_lane WHERE target = ?1 AND held_active = 1 \
                 ORDER BY held_pass, id LIMIT ?2";
    LANE_READY = "SELECT 1 FROM cp_queue WHERE lane = ?1 AND state = 0 LIMIT 1";
    LANE_SECOND = "SELECT 1 FROM cp_queue WHERE lane = ?1 AND state = 0 LIMIT 1 OFFSET 1";
    FLOW_BY_NAME = "SELECT id FROM cp_flow WHERE installation = ?1 AND name = ?2";
    FLOW_ADD = "INSERT INTO cp_flow (installation, name, customer) VALUES (?1, ?2, ?3)";

    SEQ_LAST = "SELECT max(seq) FROM cp_call";
    CALL_ADD = "INSERT INTO cp_call (seq, id, lane, flow, created, head, request) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                ON CONFLICT (id) DO NOTHING";
    CALL_KNOWN = "SELECT 1 FROM cp_call WHERE id = ?1";
    CALL_OWNER = "SELECT c.seq, c.flow, l.customer FROM cp_call c CROSS JOIN cp_lane l ON l.id = c.lane WHERE c.id = ?1";
    QUEUE_ADD = "INSERT INTO cp_queue (seq, lane, flow, prio, state, due, fence, attempt, max_attempts, repeatable, begun, \
                 stop, close, okey, since, started, expires, note, hold, size, bounds, pin) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, 0, ?12, ?13, ?14, ?15, ?19, ?16, ?17, ?18, ?20)";
    KEY_GET = "SELECT fingerprint, id FROM cp_key WHERE scope = ?1 AND expires > ?2";
    KEY_PUT = "INSERT INTO cp_key (scope, fingerprint, id, expires) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (scope) DO UPDATE SET fingerprint = excluded.fingerprint, id = excluded.id, \
               expires = excluded.expires";

    OKEY_BUSY = "SELECT 1 FROM cp_queue WHERE okey = ?1 LIMIT 1";
    OKEY_BEFORE = "SELECT 1 FROM cp_queue WHERE okey = ?1 AND seq < ?2 LIMIT 1";
    OKEY_HEAD = row!("WHERE okey = ?1 ORDER BY seq LIMIT 1");

    LEASE_ROWS = "SELECT q.seq, q.fence, q.attempt, q.close, q.since, q.expires, q.flow, c.id, c.head, c.request, q.hold, \
                  q.note, q.bounds FROM cp_queue q CROSS JOIN cp_call c ON c.seq = q.seq WHERE q.lane = ?1 AND q.state = 0 \
                  ORDER BY q.prio, q.seq LIMIT ?2";
    PRIO_NEXT = "SELECT prio FROM cp_queue WHERE lane = ?1 AND state = 0 AND prio > ?2 ORDER BY prio LIMIT 1";
    LEASE_NEWEST = "SELECT q.seq, q.fence, q.attempt, q.close, q.since, q.expires, q.flow, c.id, c.head, c.request, \
                    q.hold, q.note, q.bounds FROM cp_queue q CROSS JOIN cp_call c ON c.seq = q.seq \
                    WHERE q.lane = ?1 AND q.state = 0 AND q.prio = ?2 ORDER BY q.seq DESC LIMIT ?3";
    LEASE_SET = "UPDATE cp_queue SET state = 1, due = ?2, fence = ?3, attempt = ?4, begun = ?5, close = ?6, started = ?7, \
                 progress = NULL WHERE seq = ?1";
    EXTEND = "UPDATE cp_queue SET due = ?3 WHERE seq = ?1 AND fence = ?2 AND state = 1 RETURNING stop, close";
    BEGIN = "UPDATE cp_queue SET begun = 1 WHERE seq = ?1 AND fence = ?2 AND state = 1";
    // `OR FAIL` is as good as the default for one row, and needs no journal of its own to take back what it has done.
    COMPLETE = "INSERT OR FAIL INTO cp_done (seq, state, fence, attempt, started, finished, note, reply) \
                SELECT seq, 1, fence, attempt, started, ?3, note, ?4 FROM cp_queue \
                WHERE seq = ?1 AND fence = ?2 AND state = 1 AND flow IS NULL AND okey IS NULL AND bounds = 0";
    QUEUE_LEASED = row!("WHERE seq = ?1 AND fence = ?2 AND state = 1");
    QUEUE_ROW = row!("WHERE seq = ?1");
    QUEUE_MOVE = "UPDATE cp_queue SET state = ?2, due = ?3, attempt = ?4, begun = 0, close = ?5, since = ?6, note = ?7, \
                  lane = ?8, bounds = min(bounds, 1), parked = NULL WHERE seq = ?1";
    QUEUE_ASIDE = "UPDATE cp_queue SET lane = ?2, due = NULL WHERE seq = ?1 AND state = 0";
    QUEUE_STOP = "UPDATE cp_queue SET stop = 1 WHERE seq = ?1";
    QUEUE_UNREADABLE = "UPDATE cp_queue SET state = 9, due = NULL, attempt = attempt - (close = 0), \
                        bounds = min(bounds, 1) WHERE seq = ?1 AND fence = ?2 AND state = 1";
    QUEUE_DELETE = "DELETE FROM cp_queue WHERE seq = ?1";
    DONE_ADD = "INSERT INTO cp_done (seq, state, fence, attempt, started, finished, note, reply) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    DONE_OF_FLOW = "SELECT d.fence, d.reply FROM cp_call c CROSS JOIN cp_done d ON d.seq = c.seq \
                    WHERE c.seq = ?1 AND c.id = ?2 AND c.flow IS NOT NULL";

    BOUND_PUT = "INSERT INTO cp_bound (key, running) VALUES (?1, 0) ON CONFLICT (key) DO UPDATE SET running = running \
                 RETURNING id, running";
    BOUND_COUNT = "UPDATE cp_bound SET running = max(running + ?2, 0) WHERE id = ?1";
    BOUNDED_ADD = "INSERT INTO cp_bounded (seq, bound, max) VALUES (?1, ?2, ?3)";
    BOUNDED_DELETE = "DELETE FROM cp_bounded WHERE seq = ?1";
    BOUNDS_OF = "SELECT d.bound, d.max, b.running FROM cp_bounded d CROSS JOIN cp_bound b ON b.id = d.bound \
                 WHERE d.seq = ?1 ORDER BY d.bound";
    QUEUE_COUNTED = "UPDATE cp_queue SET bounds = 2 WHERE seq = ?1";
    QUEUE_PARK = "UPDATE cp_queue SET state = 5, due = NULL, parked = ?2 WHERE seq = ?1";
    PARKED_FIRST = row!("WHERE parked = ?1 ORDER BY prio, seq LIMIT 1");
    RATE_GET = "SELECT due FROM cp_rate WHERE key = ?1";
    RATE_PUT = "INSERT INTO cp_rate (key, due) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET due = excluded.due";

    DUE = row!("WHERE due <= ?1 ORDER BY due LIMIT 256");
    DUE_DELAYS = row!("WHERE due <= ?1 AND state IN (0, 2) ORDER BY due LIMIT 256");
    DUE_NEXT = "SELECT due FROM cp_queue WHERE due > ?1 ORDER BY due LIMIT 1";
    LEASES_TOO_LONG = row!("WHERE due > ?1 AND state = 1 LIMIT 256");
    DUE_SET = "UPDATE cp_queue SET due = ?2 WHERE seq = ?1";

    STATE_VERSION = "SELECT version FROM cp_flow_state WHERE flow = ?1";
    STATE_PUT = "INSERT INTO cp_flow_state (flow, version, value) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (flow) DO UPDATE SET version = excluded.version, value = excluded.value";
    LOG_LAST = "SELECT max(n) FROM cp_log WHERE seq = ?1";
    LOG_ADD = "INSERT INTO cp_log (seq, n, at, level, audience, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    PROGRESS_SET = "UPDATE cp_queue SET progress = ?3 WHERE seq = ?1 AND fence = ?2 AND state = 1 AND flow IS NOT NULL";
    PAST_USED = "UPDATE cp_past SET used = max(used, ?3) WHERE first <= ?2 AND last >= ?2 \
                 AND installation = (SELECT installation FROM cp_flow WHERE id = ?1)";
    SCHEDULE_FIRE = "UPDATE cp_schedule SET next = ?4 WHERE installation = ?1 AND flow = ?2 AND next = ?3";
}

// What is read for people and by schedulers.
statements! { READS:
    SEEN_BY_ID = seen!("WHERE c.id = ?1");
    SEEN_BY_SEQ = seen!("WHERE c.seq = ?1");
    ENDED = "SELECT c.seq FROM cp_call c CROSS JOIN cp_done d ON d.seq = c.seq WHERE c.id = ?1";
    LANE_STATS = "SELECT count(*), coalesce(sum(q.size), 0) FROM cp_lane l CROSS JOIN cp_queue q \
                  ON q.lane IN (l.id, -l.id) AND q.state = 0 \
                  WHERE l.target = (SELECT id FROM cp_target WHERE name = ?1) AND l.customer = ?2";
    LANE_PARKED = "SELECT count(*), coalesce(sum(q.size), 0) FROM cp_lane l CROSS JOIN cp_queue q \
                   ON q.lane IN (l.id, -l.id) AND q.state = 5 \
                   WHERE l.target = (SELECT id FROM cp_target WHERE name = ?1) AND l.customer = ?2";
    NOTE = "SELECT note FROM cp_note WHERE target = ?1";
    CALL_WHOLE = "SELECT head, request, flow FROM cp_call WHERE id = ?1";
    DEAD = "SELECT seq FROM cp_done WHERE state = 2 AND seq < ?1 ORDER BY seq DESC LIMIT ?2";
    FLOWS_OF_CUSTOMER = "SELECT id, installation, name FROM cp_flow WHERE customer = ?1";
    FLOWS_OF_INSTALLATION = "SELECT id, customer, name FROM cp_flow WHERE installation = ?1";
    FLOWS_BY_NAME = "SELECT id, name FROM cp_flow WHERE name = ?1";
    FLOW_CALLS = "SELECT seq FROM cp_call WHERE flow = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";
    FLOW_ACTIVE = "SELECT seq FROM cp_queue WHERE flow = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";
    FLOW_ACTIVE_COUNT = "SELECT count(*) FROM cp_queue WHERE flow = ?1";
    ALL_CALLS = "SELECT seq, flow FROM cp_call WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";
    ALL_ACTIVE = "SELECT seq, flow FROM cp_queue WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";
    LOG_LINES = "SELECT n, at, level, audience, message FROM cp_log WHERE seq = ?1 AND n > ?2 ORDER BY n LIMIT ?3";
    LOG_LINES_FOR = "SELECT n, at, level, audience, message FROM cp_log WHERE seq = ?1 AND n > ?2 AND audience = ?3 \
                     ORDER BY n LIMIT ?4";
    STATE_GET = "SELECT f.customer, s.version, s.value FROM cp_flow f CROSS JOIN cp_flow_state s ON s.flow = f.id \
                 WHERE f.installation = ?1 AND f.name = ?2";
    SCHEDULES_DUE = "SELECT installation, customer, flow, spec, next, paused FROM cp_schedule WHERE next <= ?1 \
                     ORDER BY next LIMIT ?2";
    SCHEDULES_OF = "SELECT installation, customer, flow, spec, next, paused FROM cp_schedule WHERE installation = ?1 \
                    ORDER BY flow";
    SCHEDULE_SOONEST = "SELECT next FROM cp_schedule WHERE next > ?1 ORDER BY next LIMIT 1";
    INSTALLATION = "SELECT i.id, i.customer, i.integration, i.version, i.state, i.attention, i.config, i.connections, \
                    i.revision, i.created, i.updated, s.name, s.generation, s.sealed FROM cp_installation i \
                    LEFT JOIN cp_secret s ON s.installation = i.id WHERE i.id = ?1";
    INSTALLATIONS = "SELECT id, customer, integration, version, state, attention, config, connections, revision, created, \
                     updated FROM cp_installation WHERE (created, id) < (?1, ?2) ORDER BY created DESC, id DESC LIMIT ?3";
    INSTALLATIONS_OF = "SELECT id, customer, integration, version, state, attention, config, connections, revision, \
                        created, updated FROM cp_installation WHERE customer = ?4 AND (created, id) < (?1, ?2) \
                        ORDER BY created DESC, id DESC LIMIT ?3";
    INSTALLATION_SINCE = "SELECT since, kept, revision FROM cp_installation WHERE id = ?1";
    PAST = "SELECT first, version, config, connections FROM cp_past WHERE installation = ?1 AND first <= ?2 \
            AND last >= ?2 ORDER BY first DESC LIMIT 1";
    PAST_SECRETS = "SELECT name, generation, sealed FROM cp_past_secret WHERE installation = ?1 AND first = ?2";
    SECRETS_OF = "SELECT name, generation, sealed FROM cp_secret WHERE installation = ?1";
    CONNECTION = "SELECT id, customer, connector, label, scheme, variables, health, sealed, generation, created, updated \
                  FROM cp_connection WHERE id = ?1";
    CONNECTIONS = "SELECT id, customer, connector, label, scheme, variables, health, sealed, generation, created, updated \
                   FROM cp_connection WHERE (created, id) < (?1, ?2) ORDER BY created DESC, id DESC LIMIT ?3";
    CONNECTIONS_OF = "SELECT id, customer, connector, label, scheme, variables, health, sealed, generation, created, \
                      updated FROM cp_connection WHERE customer = ?4 AND (created, id) < (?1, ?2) \
                      ORDER BY created DESC, id DESC LIMIT ?3";
    CUSTOMER = "SELECT name FROM cp_customer WHERE id = ?1";
    CUSTOMERS = "SELECT id, name, created FROM cp_customer WHERE id > ?1 ORDER BY id LIMIT ?2";
    DATA_KEYS = "SELECT number, wrapped, created FROM cp_data_key WHERE customer = ?1 ORDER BY number";
}

// What the writer runs now and then.
statements! { RARE:
    META_GET = "SELECT value FROM cp_meta WHERE key = ?1";
    META_PUT = "INSERT INTO cp_meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    NOTE_PUT = "INSERT INTO cp_note (target, note) VALUES (?1, ?2) ON CONFLICT (target) DO UPDATE SET note = excluded.note";
    DONE_BY_ID = "SELECT d.state, c.head, c.request FROM cp_call c CROSS JOIN cp_done d ON d.seq = c.seq WHERE c.id = ?1";
    ENDED_BEFORE = "SELECT seq FROM cp_done WHERE finished < ?1 ORDER BY finished LIMIT ?2";
    CALL_DELETE = "DELETE FROM cp_call WHERE seq = ?1";
    DONE_DELETE = "DELETE FROM cp_done WHERE seq = ?1";
    LOG_DELETE = "DELETE FROM cp_log WHERE seq = ?1";
    KEYS_EXPIRED = "SELECT n FROM cp_key WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
    KEY_DELETE = "DELETE FROM cp_key WHERE n = ?1";
    INSTALLATION_STANDING = "SELECT customer, revision, state, version, config, connections, since, kept \
                             FROM cp_installation WHERE id = ?1";
    INSTALLATION_ADD = "INSERT INTO cp_installation (id, customer, integration, version, state, attention, config, \
                        connections, revision, created, updated, since, kept) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?9, ?9)";
    INSTALLATION_SET = "UPDATE cp_installation SET integration = ?2, version = ?3, state = ?4, attention = ?5, \
                        config = ?6, connections = ?7, revision = ?8, updated = ?9, since = ?10, kept = ?8 WHERE id = ?1";
    PAST_ADD = "INSERT INTO cp_past (installation, first, last, used, version, config, connections) \
                SELECT id, ?2, ?3, ?4, version, config, connections FROM cp_installation WHERE id = ?1";
    PAST_SECRETS_ADD = "INSERT INTO cp_past_secret (installation, first, name, generation, sealed) \
                        SELECT installation, ?2, name, generation, sealed FROM cp_secret WHERE installation = ?1";
    PAST_OVER = "SELECT first FROM cp_past WHERE installation = ?1 ORDER BY first DESC LIMIT -1 OFFSET ?2";
    PAST_DELETE = "DELETE FROM cp_past WHERE installation = ?1 AND first = ?2";
    PAST_SECRETS_DELETE = "DELETE FROM cp_past_secret WHERE installation = ?1 AND first = ?2";
    PAST_CLEAR = "DELETE FROM cp_past WHERE installation = ?1";
    PAST_SECRETS_CLEAR = "DELETE FROM cp_past_secret WHERE installation = ?1";
    PAST_UNUSED = "SELECT p.installation, p.first FROM cp_past p WHERE p.used < ?1 AND NOT EXISTS ( \
                   SELECT 1 FROM cp_flow f CROSS JOIN cp_queue q ON q.flow = f.id AND q.pin IS NOT NULL \
                   WHERE f.installation = p.installation AND q.pin BETWEEN p.first AND p.last) ORDER BY p.used LIMIT ?2";
    INSTALLATION_DELETE = "DELETE FROM cp_installation WHERE id = ?1";
    SECRET_ADD = "INSERT INTO cp_secret (installation, name, generation, sealed) VALUES (?1, ?2, ?3, ?4)";
    SECRETS_DELETE = "DELETE FROM cp_secret WHERE installation = ?1";
    SCHEDULE_ADD = "INSERT INTO cp_schedule (installation, flow, customer, spec, next, paused) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (installation, flow) DO UPDATE \
                    SET customer = excluded.customer, spec = excluded.spec, next = excluded.next, paused = excluded.paused";
    SCHEDULES_PAUSED = "SELECT flow, paused FROM cp_schedule WHERE installation = ?1 AND paused IS NOT NULL";
    SCHEDULE_ONE = "SELECT installation, customer, flow, spec, next, paused FROM cp_schedule WHERE installation = ?1 \
                    AND flow = ?2";
    SCHEDULE_PAUSE = "UPDATE cp_schedule SET paused = ?3, next = ?4 WHERE installation = ?1 AND flow = ?2";
    SCHEDULES_DELETE = "DELETE FROM cp_schedule WHERE installation = ?1";
    STATE_DELETE = "DELETE FROM cp_flow_state WHERE flow = ?1";
    CONNECTION_OWNER = "SELECT customer, generation FROM cp_connection WHERE id = ?1";
    CONNECTION_ADD = "INSERT INTO cp_connection (id, customer, connector, label, scheme, variables, health, sealed, \
                      generation, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    CONNECTION_SET = "UPDATE cp_connection SET label = ?2, scheme = ?3, variables = ?4, health = ?5, sealed = ?6, \
                      generation = ?7, updated = ?8 WHERE id = ?1";
    CONNECTION_HEALTH = "UPDATE cp_connection SET health = ?2 WHERE id = ?1";
    CONNECTION_DELETE = "DELETE FROM cp_connection WHERE id = ?1";
    CUSTOMER_PUT = "INSERT INTO cp_customer (id, name, created) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    DATA_KEY_ADD = "INSERT INTO cp_data_key (customer, number, wrapped, created) VALUES (?1, ?2, ?3, ?4) \
                    ON CONFLICT (customer, number) DO NOTHING";
    DATA_KEY_SET = "UPDATE cp_data_key SET wrapped = ?4 WHERE customer = ?1 AND number = ?2 AND wrapped = ?3";
}

/// What is set aside because it could not be read. Reads the whole queue, once for each start of a process.
pub(crate) const SET_ASIDE: &str = row!("WHERE state = 9");

/// Counts for operators: reads the whole (hot, small) queue and the dead letters, and sorts them.
pub(crate) const STATS: &str = "SELECT t.name, q.ready, q.delayed, q.leased, q.oldest, d.dead, q.held, q.bytes FROM cp_target t \
    LEFT JOIN (SELECT l.target AS target, sum(q.state = 0) AS ready, sum(q.state IN (2, 4, 5)) AS delayed, \
        sum(q.state = 0 AND q.lane < 0) AS held, sum(CASE WHEN q.state IN (0, 2, 4, 5) THEN q.size END) AS bytes, \
        sum(q.state = 1) AS leased, min(CASE WHEN q.state = 0 THEN q.since END) AS oldest \
        FROM cp_queue q JOIN cp_lane l ON l.id = abs(q.lane) GROUP BY l.target) q ON q.target = t.id \
    LEFT JOIN (SELECT l.target AS target, count(*) AS dead FROM cp_done d JOIN cp_call c ON c.seq = d.seq \
        JOIN cp_lane l ON l.id = c.lane WHERE d.state = 2 GROUP BY l.target) d ON d.target = t.id \
    ORDER BY t.name";
