//! Installations, connections, customers, data keys, schedules: the writes.

use super::{Ledger, Parcel};
use crate::{
    fail::Fail,
    repos::{json, schedule},
    sql,
};
use crosspoint_core::{
    Connection, ConnectionId, Customer, CustomerId, DataKey, Fire, Health, Installation, InstallationId,
    SaveInstallation, Saved, Schedule, Sealed, Timestamp,
};
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeMap;

impl Ledger {
    /// Creates or changes an installation, if it still is at the revision it was read at.
    pub(crate) fn save_installation(&mut self, save: SaveInstallation) -> Result<Saved, Fail> {
        let new = save.installation;
        let attention = match &new.attention {
            Some(failure) => Some(json(failure)?),
            None => None,
        };
        let (config, connections) = (new.config.to_string(), json(&new.connections)?);
        let schedules = match save.schedules {
            Some(schedules) => Some(specs(schedules)?),
            None => None,
        };
        let starts = Parcel::all_queued(save.starts);
        let known = self.standing(new.id)?;
        let since = match &known {
            None if new.revision == 0 => None,
            Some(old) if old.customer == new.customer.as_str() && old.revision == new.revision.cast_signed() => {
                Some(self.keep(old, &new, (&config, &connections))?)
            }
            _ => return Ok(Saved::Stale),
        };
        let (id, next, now) = (
            new.id.as_bytes(),
            new.revision.saturating_add(1).cast_signed(),
            self.now(),
        );
        let state = new.state.as_str();
        if let Some(since) = since {
            self.db.prepare_cached(sql::INSTALLATION_SET)?.execute(params![
                id,
                new.integration,
                new.version,
                state,
                attention,
                config,
                connections,
                next,
                now,
                since
            ])?;
        } else {
            self.db.prepare_cached(sql::INSTALLATION_ADD)?.execute(params![
                id,
                new.customer.as_str(),
                new.integration,
                new.version,
                state,
                attention,
                config,
                connections,
                next,
                new.created.as_millis(),
                now
            ])?;
        }
        self.replace_secrets(&new)?;
        if let Some(schedules) = schedules {
            self.replace_schedules(new.id, new.customer.as_str(), schedules)?;
        }
        self.enqueue_all(starts)?;
        Ok(Saved::Applied)
    }

    fn replace_secrets(&self, installation: &Installation) -> Result<(), Fail> {
        let id = installation.id.as_bytes();
        self.db.prepare_cached(sql::SECRETS_DELETE)?.execute([id])?;
        for (name, (generation, sealed)) in &installation.secrets {
            let row = (id, name, generation.cast_signed(), sealed.as_bytes());
            self.db.prepare_cached(sql::SECRET_ADD)?.execute(row)?;
        }
        Ok(())
    }

    /// Replaces the schedules of an installation. What rests goes on resting.
    fn replace_schedules(&self, id: InstallationId, customer: &str, schedules: Vec<Spec>) -> Result<(), Fail> {
        let id = id.as_bytes();
        let mut statement = self.db.prepare_cached(sql::SCHEDULES_PAUSED)?;
        let resting: BTreeMap<String, i64> = statement
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        self.db.prepare_cached(sql::SCHEDULES_DELETE)?.execute([id])?;
        for (flow, spec, next, paused) in schedules {
            let paused = resting.get(&flow).copied().or(paused);
            let row = (id, flow, customer, spec, next.filter(|_| paused.is_none()), paused);
            self.db.prepare_cached(sql::SCHEDULE_ADD)?.execute(row)?;
        }
        Ok(())
    }

    /// Lets a schedule rest, or go on.
    pub(crate) fn pause_schedule(
        &self,
        owner: Option<&CustomerId>,
        installation: InstallationId,
        flow: &str,
        (paused, next): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Option<Schedule>, Fail> {
        let key = (installation.as_bytes(), flow);
        let mut statement = self.db.prepare_cached(sql::SCHEDULE_ONE)?;
        let found = statement.query_row(key, |row| Ok(schedule(row))).optional()?;
        let Some(mut found) = found.transpose().map_err(Fail::Group)? else {
            return Ok(None);
        };
        if owner.is_some_and(|owner| *owner != found.customer) {
            return Ok(None);
        }
        (found.paused, found.next) = match paused {
            Some(since) => (Some(found.paused.unwrap_or(since)), None),
            None => (None, next),
        };
        let (since, next) = (
            found.paused.map(Timestamp::as_millis),
            found.next.map(Timestamp::as_millis),
        );
        let row = (installation.as_bytes(), flow, since, next);
        self.db.prepare_cached(sql::SCHEDULE_PAUSE)?.execute(row)?;
        Ok(Some(found))
    }

    /// Removes an installation with its schedules, secrets and its flows' state.
    pub(crate) fn remove_installation(
        &mut self,
        owner: Option<&CustomerId>,
        id: InstallationId,
        revision: u64,
    ) -> Result<Saved, Fail> {
        match self.standing(id)? {
            Some(old)
                if owner.is_none_or(|owner| owner.as_str() == old.customer)
                    && old.revision == revision.cast_signed() => {}
            _ => return Ok(Saved::Stale),
        }
        let mut flows = self.db.prepare_cached(sql::FLOWS_OF_INSTALLATION)?;
        let flows: Vec<i64> = flows
            .query_map([id.as_bytes()], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for flow in flows {
            self.db.prepare_cached(sql::STATE_DELETE)?.execute([flow])?;
        }
        for text in [sql::SCHEDULES_DELETE, sql::SECRETS_DELETE, sql::INSTALLATION_DELETE] {
            self.db.prepare_cached(text)?.execute([id.as_bytes()])?;
        }
        self.forget_all(id)?;
        Ok(Saved::Applied)
    }

    /// Fires a tick, if it is still the next one.
    pub(crate) fn fire(&mut self, fire: Fire) -> Result<Saved, Fail> {
        let starts = Parcel::all_queued(fire.starts);
        let moved = self.db.prepare_cached(sql::SCHEDULE_FIRE)?.execute((
            fire.installation.as_bytes(),
            &fire.flow,
            fire.scheduled.as_millis(),
            fire.next.map(Timestamp::as_millis),
        ))?;
        if moved == 0 {
            return Ok(Saved::Stale);
        }
        self.enqueue_all(starts)?;
        Ok(Saved::Applied)
    }

    /// Creates a connection, or replaces one whose generation is one less.
    pub(crate) fn save_connection(&mut self, new: &Connection) -> Result<Saved, Fail> {
        let (id, variables) = (new.id.as_bytes(), json(&new.variables)?);
        let sealed = new.sealed.as_ref().map(Sealed::as_bytes);
        let generation = new.generation.cast_signed();
        match self.connection_owner(new.id)? {
            None => self.db.prepare_cached(sql::CONNECTION_ADD)?.execute(params![
                id,
                new.customer.as_str(),
                new.connector,
                new.label,
                new.scheme,
                variables,
                new.health.as_str(),
                sealed,
                generation,
                new.created.as_millis(),
                new.updated.as_millis()
            ])?,
            Some((owner, known)) if owner == new.customer.as_str() && known.saturating_add(1) == generation => {
                self.db.prepare_cached(sql::CONNECTION_SET)?.execute((
                    id,
                    &new.label,
                    &new.scheme,
                    variables,
                    new.health.as_str(),
                    sealed,
                    generation,
                    new.updated.as_millis(),
                ))?
            }
            Some(_) => return Ok(Saved::Stale),
        };
        Ok(Saved::Applied)
    }

    fn connection_owner(&self, id: ConnectionId) -> Result<Option<(String, i64)>, Fail> {
        let mut statement = self.db.prepare_cached(sql::CONNECTION_OWNER)?;
        Ok(statement
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    fn owns_connection(&self, owner: Option<&CustomerId>, id: ConnectionId) -> Result<bool, Fail> {
        let found = self.connection_owner(id)?;
        Ok(found.is_some_and(|(customer, _)| owner.is_none_or(|owner| owner.as_str() == customer)))
    }

    /// Writes how a connection is doing, and nothing else.
    pub(crate) fn set_health(
        &mut self,
        owner: Option<&CustomerId>,
        id: ConnectionId,
        health: Health,
    ) -> Result<(), Fail> {
        if self.owns_connection(owner, id)? {
            let row = (id.as_bytes(), health.as_str());
            self.db.prepare_cached(sql::CONNECTION_HEALTH)?.execute(row)?;
        }
        Ok(())
    }

    /// Removes a connection.
    pub(crate) fn remove_connection(&mut self, owner: Option<&CustomerId>, id: ConnectionId) -> Result<bool, Fail> {
        let owned = self.owns_connection(owner, id)?;
        if owned {
            self.db
                .prepare_cached(sql::CONNECTION_DELETE)?
                .execute([id.as_bytes()])?;
        }
        Ok(owned)
    }

    /// Makes a customer's record, or updates its name.
    pub(crate) fn put_customer(&mut self, customer: &Customer) -> Result<(), Fail> {
        let row = (customer.id.as_str(), &customer.name, customer.created.as_millis());
        self.db.prepare_cached(sql::CUSTOMER_PUT)?.execute(row)?;
        Ok(())
    }

    /// Adds a data key, unless its number is taken.
    pub(crate) fn add_data_key(&mut self, customer: &CustomerId, key: &DataKey) -> Result<Saved, Fail> {
        let row = (customer.as_str(), key.number, &key.wrapped, key.created.as_millis());
        Ok(saved(self.db.prepare_cached(sql::DATA_KEY_ADD)?.execute(row)?))
    }

    /// Replaces the wrapping of a data key, if it still is `from`.
    pub(crate) fn rewrap(&mut self, customer: &CustomerId, number: u32, from: &[u8], to: &[u8]) -> Result<Saved, Fail> {
        let row = (customer.as_str(), number, from, to);
        Ok(saved(self.db.prepare_cached(sql::DATA_KEY_SET)?.execute(row)?))
    }
}

const fn saved(rows: usize) -> Saved {
    if rows == 0 { Saved::Stale } else { Saved::Applied }
}

/// Flow, schedule as JSON, next tick, and since when it is paused.
type Spec = (String, String, Option<i64>, Option<i64>);

fn specs(schedules: Vec<Schedule>) -> Result<Vec<Spec>, Fail> {
    let specs = schedules.into_iter().map(|schedule| {
        let spec = json(&schedule.spec)?;
        let (next, paused) = (schedule.next, schedule.paused);
        Ok((
            schedule.flow,
            spec,
            next.map(Timestamp::as_millis),
            paused.map(Timestamp::as_millis),
        ))
    });
    specs.collect()
}
