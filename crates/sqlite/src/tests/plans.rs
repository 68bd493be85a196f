//! How SQLite would run each statement: by an index, and without sorting.

use super::database;
use crate::sql;
use rusqlite::Connection;

fn plan(db: &Connection, text: &str) -> Vec<String> {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
    for n in 1..=statement.parameter_count() {
        statement.raw_bind_parameter(n, 1).unwrap();
    }
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get(3).unwrap());
    }
    steps
}

/// Some rows in every table of the hot paths, so that ANALYZE has something to count.
fn fill(db: &Connection) {
    db.execute_batch(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO cp_call SELECT i, randomblob(16), i % 50 + 1, CASE WHEN i % 2 THEN i % 20 + 1 END, i, x'00', x'00' FROM n;
         INSERT INTO cp_target VALUES (1, 't', 0, 0);
         INSERT INTO cp_lane SELECT seq, 1, 'c' || seq, seq, seq % 2, seq, seq % 3 = 0 FROM cp_call WHERE seq <= 50;
         INSERT INTO cp_flow SELECT seq, randomblob(16), 'f', 'c' || seq FROM cp_call WHERE seq <= 20;
         INSERT INTO cp_queue SELECT seq, lane, flow, 0, seq % 5, CASE WHEN seq % 5 IN (1, 2) THEN seq END, 1, 1, 5, 0, 0, 0, 0,
             CASE WHEN seq % 7 = 0 THEN seq % 30 END, seq, seq, NULL, NULL, CASE WHEN seq % 3 = 0 THEN seq END, 1,
             seq % 3, CASE WHEN seq % 11 = 0 THEN seq % 20 END, CASE WHEN seq % 13 = 0 THEN seq END, NULL FROM cp_call WHERE seq > 1000;
         INSERT INTO cp_bound SELECT seq, 'k' || seq, 1 FROM cp_call WHERE seq <= 20;
         INSERT INTO cp_bounded SELECT seq, seq % 20 + 1, 3 FROM cp_queue;
         INSERT INTO cp_rate SELECT 'k' || seq, seq FROM cp_call WHERE seq <= 20;
         INSERT INTO cp_done SELECT seq, seq % 5 + 1, 1, 1, seq, seq, NULL, x'00' FROM cp_call WHERE seq <= 1000;
         INSERT INTO cp_key SELECT seq, randomblob(16), x'00', id, seq FROM cp_call;
         INSERT INTO cp_log SELECT seq, 1, 1, 'info', 'customer', 'm' FROM cp_call;
         INSERT INTO cp_flow_state SELECT id, 1, '1' FROM cp_flow;
         INSERT INTO cp_past SELECT installation, id, id, id, '1', '{}', '{}' FROM cp_flow;
         INSERT INTO cp_past_secret SELECT installation, first, 's', 1, x'00' FROM cp_past;
         INSERT INTO cp_schedule SELECT installation, name, customer, '{}', id, NULL FROM cp_flow;",
    )
    .unwrap();
}

fn check(db: &Connection, when: &str) {
    let mut seen = 0;
    for (name, text) in sql::HOT.iter().chain(sql::READS).chain(sql::RARE) {
        for step in plan(db, text) {
            seen += 1;
            assert!(!step.contains("TEMP B-TREE"), "{name} sorts {when}: {step}");
            assert!(!step.starts_with("SCAN"), "{name} scans {when}: {step}");
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn nothing_scans_and_nothing_sorts() {
    let (_folder, db) = database();
    check(&db, "on an empty file");
    fill(&db);
    check(&db, "with rows");
    db.execute_batch("ANALYZE").unwrap();
    check(&db, "after ANALYZE");
}

#[test]
fn the_check_notices_a_scan_and_a_sort() {
    let (_folder, db) = database();
    let steps = plan(&db, "SELECT seq FROM cp_queue ORDER BY note");
    assert!(steps.iter().any(|step| step.starts_with("SCAN")), "{steps:?}");
    assert!(steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
}

#[test]
fn leases_and_timers_use_their_partial_indexes() {
    let (_folder, db) = database();
    for (text, index) in [
        (sql::LEASE_ROWS, "cp_queue_ready"),
        (sql::LANE_STATS, "cp_queue_ready"),
        (sql::LANE_PARKED, "cp_queue_parked_lane"),
        (sql::PARKED_FIRST, "cp_queue_parked"),
        (sql::LANE_READY, "cp_queue_ready"),
        (sql::LANES_NEXT, "cp_lane_next"),
        (sql::LEASE_NEWEST, "cp_queue_ready"),
        (sql::PRIO_NEXT, "cp_queue_ready"),
        (sql::HELD_NEXT, "cp_lane_held"),
        (sql::HELD_ACTIVE, "cp_lane_held"),
        (sql::DUE, "cp_queue_due"),
        (sql::DUE_NEXT, "cp_queue_due"),
        (sql::OKEY_HEAD, "cp_queue_okey"),
        (sql::OKEY_BEFORE, "cp_queue_okey"),
        (sql::FLOW_ACTIVE_COUNT, "cp_queue_flow"),
        (sql::DEAD, "cp_done_dead"),
        (sql::ENDED_BEFORE, "cp_done_finished"),
        (sql::SCHEDULES_DUE, "cp_schedule_next"),
    ] {
        let steps = plan(&db, text);
        assert!(steps.iter().any(|step| step.contains(index)), "{text}: {steps:?}");
    }
}
