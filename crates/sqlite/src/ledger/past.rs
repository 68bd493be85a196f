//! What installations had before they were changed: kept while executions refer to it.

use super::Ledger;
use crate::{fail::Fail, sql};
use crosspoint_core::{Installation, InstallationId, InstallationState};
use rusqlite::{OptionalExtension, params};

/// An installation as it stands in the file.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) customer: String,
    pub(super) revision: i64,
    state: String,
    version: String,
    config: String,
    connections: String,
    since: i64,
    kept: i64,
}

impl Ledger {
    pub(super) fn standing(&self, id: InstallationId) -> Result<Option<Standing>, Fail> {
        let mut statement = self.db.prepare_cached(sql::INSTALLATION_STANDING)?;
        let found = statement.query_row([id.as_bytes()], |row| {
            Ok(Standing {
                customer: row.get(0)?,
                revision: row.get(1)?,
                state: row.get(2)?,
                version: row.get(3)?,
                config: row.get(4)?,
                connections: row.get(5)?,
                since: row.get(6)?,
                kept: row.get(7)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Keeps what a save is about to change. The first revision with what is there after it.
    pub(super) fn keep(&self, old: &Standing, new: &Installation, texts: (&str, &str)) -> Result<i64, Fail> {
        let since = first(old.since, old.kept, old.revision);
        let same = (old.version.as_str(), (old.config.as_str(), old.connections.as_str())) == (&new.version, texts);
        if same && self.same_secrets(new)? {
            return Ok(since);
        }
        let next = old.revision.saturating_add(1);
        if old.state == InstallationState::Draft.as_str() {
            return Ok(next);
        }
        let id = new.id.as_bytes();
        let now = self.now();
        self.db
            .prepare_cached(sql::PAST_ADD)?
            .execute(params![id, since, old.revision, now])?;
        self.db
            .prepare_cached(sql::PAST_SECRETS_ADD)?
            .execute(params![id, since])?;
        let most = i64::try_from(Installation::KEPT).unwrap_or(i64::MAX);
        let mut statement = self.db.prepare_cached(sql::PAST_OVER)?;
        let over: Vec<i64> = statement
            .query_map(params![id, most], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for first in over {
            self.forget(id, first)?;
        }
        Ok(next)
    }

    fn same_secrets(&self, new: &Installation) -> Result<bool, Fail> {
        let mut statement = self.db.prepare_cached(sql::SECRETS_OF)?;
        let mut rows = statement.query([new.id.as_bytes()])?;
        let mut known = 0;
        while let Some(row) = rows.next()? {
            let (name, generation): (String, i64) = (row.get(0)?, row.get(1)?);
            let sealed: Vec<u8> = row.get(2)?;
            let same = new.secrets.get(&name);
            if !same.is_some_and(|(n, with)| n.cast_signed() == generation && with.as_bytes() == sealed) {
                return Ok(false);
            }
            known += 1;
        }
        Ok(known == new.secrets.len())
    }

    fn forget(&self, id: &[u8], first: i64) -> Result<(), Fail> {
        for text in [sql::PAST_SECRETS_DELETE, sql::PAST_DELETE] {
            self.db.prepare_cached(text)?.execute(params![id, first])?;
        }
        Ok(())
    }

    /// Forgets everything that a removed installation had.
    pub(super) fn forget_all(&self, id: InstallationId) -> Result<(), Fail> {
        for text in [sql::PAST_SECRETS_CLEAR, sql::PAST_CLEAR] {
            self.db.prepare_cached(text)?.execute([id.as_bytes()])?;
        }
        Ok(())
    }

    /// An execution of a flow has ended that ran with a revision: if that is past, it is kept for as long as the
    /// execution.
    pub(super) fn refer(&self, flow: i64, revision: u64, now: i64) -> Result<(), Fail> {
        let row = params![flow, revision.cast_signed(), now];
        self.db.prepare_cached(sql::PAST_USED)?.execute(row)?;
        Ok(())
    }

    /// Forgets, some at a time, what no execution refers to that ended at `before` or later, or is to run.
    pub(super) fn purge_past(&self, before: i64, limit: i64) -> Result<(), Fail> {
        let mut statement = self.db.prepare_cached(sql::PAST_UNUSED)?;
        let unused: Vec<(Vec<u8>, i64)> = statement
            .query_map(params![before, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, first) in unused {
            self.forget(&id, first)?;
        }
        Ok(())
    }
}

/// The first revision that is known to have what the row has now.
pub(crate) const fn first(since: i64, kept: i64, revision: i64) -> i64 {
    if kept == revision { since } else { revision }
}
