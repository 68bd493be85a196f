//! Migrations: numbered, forward only, embedded, and recorded with a checksum in a table of our own, because the host
//! may keep its own tables, and its own migrations, in the same file.

use crate::fail::{damaged, store_error};
use crosspoint_core::{Code, Error, Result};
use rusqlite::{Connection, OptionalExtension};

/// One step from a schema to the next.
struct Migration {
    number: u32,
    sql: &'static str,
    /// The oldest release that may run on the schema that this step makes.
    oldest: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        sql: include_str!("0001.sql"),
        oldest: "0.1.0",
    },
    Migration {
        number: 2,
        sql: include_str!("0002.sql"),
        oldest: "0.1.0",
    },
    Migration {
        number: 3,
        sql: include_str!("0003.sql"),
        oldest: "0.1.0",
    },
    Migration {
        number: 4,
        sql: include_str!("0004.sql"),
        oldest: "0.1.0",
    },
];

const RECORDS: &str = "CREATE TABLE IF NOT EXISTS cp_schema (
    number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, oldest TEXT NOT NULL, release TEXT NOT NULL)";

const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Brings the file to this release's schema. The caller holds the turnstile.
pub(crate) fn migrate(db: &Connection) -> Result<()> {
    db.execute_batch("BEGIN IMMEDIATE").map_err(store_error)?;
    let done = apply(db).and_then(|()| db.execute_batch("COMMIT").map_err(store_error));
    if done.is_err()
        && let Err(error) = db.execute_batch("ROLLBACK")
    {
        tracing::debug!(%error, "nothing to roll back");
    }
    done
}

fn apply(db: &Connection) -> Result<()> {
    db.execute_batch(RECORDS).map_err(store_error)?;
    refuse_too_new(db)?;
    for step in MIGRATIONS {
        let known: Option<String> = db
            .query_row(
                "SELECT checksum FROM cp_schema WHERE number = ?1",
                [step.number],
                |row| row.get(0),
            )
            .optional()
            .map_err(store_error)?;
        let checksum = checksum(step.sql);
        match known {
            Some(known) if known == checksum => {}
            Some(known) => {
                return Err(Error::new(
                    Code::StoreCorrupt,
                    "the file was made by a migration that is not this release's",
                )
                .with("migration", step.number)
                .with("expected", checksum)
                .with("found", known));
            }
            None => {
                db.execute_batch(step.sql).map_err(store_error)?;
                db.execute(
                    "INSERT INTO cp_schema (number, checksum, oldest, release) VALUES (?1, ?2, ?3, ?4)",
                    (step.number, checksum, step.oldest, RELEASE),
                )
                .map_err(store_error)?;
                tracing::info!(number = step.number, "migrated the store");
            }
        }
    }
    Ok(())
}

/// A newer schema is fine as long as it says that this release may run on it.
fn refuse_too_new(db: &Connection) -> Result<()> {
    let newest: Option<(u32, String, String)> = db
        .query_row(
            "SELECT number, oldest, release FROM cp_schema ORDER BY number DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(store_error)?;
    let Some((number, oldest, release)) = newest else {
        return Ok(());
    };
    let ours = MIGRATIONS.last().map_or(0, |step| step.number);
    let oldest_parts = parts(&oldest).ok_or_else(|| damaged("release number"))?;
    if number <= ours || parts(RELEASE) >= Some(oldest_parts) {
        return Ok(());
    }
    Err(Error::new(
        Code::StoreTooNew,
        "the file was written by a newer release, on which this one may not run",
    )
    .with("written by", release)
    .with("oldest release allowed", oldest)
    .with("this release", RELEASE))
}

fn parts(release: &str) -> Option<[u64; 3]> {
    let core = release.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|part| part.parse::<u64>().ok());
    let parts = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(parts)
}

/// FNV-1a over the text without its line ends: it recognises a changed file, not an attacker.
fn checksum(sql: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in sql.bytes().filter(|byte| *byte != b'\r') {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        migrate(&db).unwrap();
        db
    }

    #[test]
    fn a_released_schema_never_changes() {
        // Changing these means that databases out there would be refused: add a migration instead.
        let checksums: Vec<String> = MIGRATIONS.iter().map(|step| checksum(step.sql)).collect();
        assert_eq!(
            checksums,
            [
                "9424bbe63e8f8328",
                "1354e5e9a69adce2",
                "b89908e7e74ad83d",
                "677d1b3eeeae2b29"
            ]
        );
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let db = fresh();
        let before: Vec<String> = dump(&db);
        migrate(&db).unwrap();
        assert_eq!(before, dump(&db));
        assert!(
            before
                .iter()
                .all(|name| name.starts_with("cp_") || name.starts_with("sqlite_")),
            "{before:?}"
        );
    }

    fn dump(db: &Connection) -> Vec<String> {
        let mut statement = db.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    #[test]
    fn a_changed_migration_is_refused() {
        let db = fresh();
        db.execute("UPDATE cp_schema SET checksum = 'other'", []).unwrap();
        assert_eq!(migrate(&db).unwrap_err().code(), Code::StoreCorrupt);
    }

    #[test]
    fn a_newer_schema_is_refused_unless_it_allows_this_release() {
        let db = fresh();
        let insert = "INSERT INTO cp_schema VALUES (99, 'x', ?1, '9.9.9')";
        db.execute(insert, [RELEASE]).unwrap();
        migrate(&db).unwrap();
        db.execute("UPDATE cp_schema SET oldest = '9.0.0' WHERE number = 99", [])
            .unwrap();
        let error = migrate(&db).unwrap_err();
        assert_eq!(error.code(), Code::StoreTooNew);
        assert!(error.to_string().contains("9.0.0"), "{error}");
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(parts("0.10.0") > parts("0.9.9"));
        assert_eq!(parts("1.2.3-rc.1"), Some([1, 2, 3]));
        assert_eq!(parts("1.2"), None);
        assert_eq!(parts("1.2.3.4"), None);
    }
}
