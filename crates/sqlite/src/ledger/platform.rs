//! Installations, connections, customers, data keys, schedules: the writes.

use super::{Ledger, Parcel};
use crate::{fail::Fail, repos::json, sql};
use crosspoint_core::{
    Connection, ConnectionId, Customer, CustomerId, DataKey, Fire, Health, Installation, InstallationId,
    SaveInstallation, Saved, Schedule, Sealed, Timestamp,
};
use rusqlite::{OptionalExtension, params};

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
        let known = self.installation_owner(new.id)?;
        let fresh = match &known {
            None if new.revision == 0 => true,
            Some((owner, revision)) if *owner == new.customer.as_str() && *revision == new.revision.cast_signed() => {
                false
            }
            _ => return Ok(Saved::Stale),
        };
        let (id, next, now) = (
            new.id.as_bytes(),
            new.revision.saturating_add(1).cast_signed(),
            self.now(),
        );
        let state = new.state.as_str();
        if fresh {
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
        } else {
            self.db.prepare_cached(sql::INSTALLATION_SET)?.execute(params![
                id,
                new.integration,
                new.version,
                state,
                attention,
                config,
                connections,
                next,
                now
            ])?;
        }
        self.replace_secrets(&new)?;
        if let Some(schedules) = schedules {
            self.db.prepare_cached(sql::SCHEDULES_DELETE)?.execute([id])?;
            for (flow, spec, at) in schedules {
                let row = (id, flow, new.customer.as_str(), spec, at);
                self.db.prepare_cached(sql::SCHEDULE_ADD)?.execute(row)?;
            }
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

    fn installation_owner(&self, id: InstallationId) -> Result<Option<(String, i64)>, Fail> {
        let mut statement = self.db.prepare_cached(sql::INSTALLATION_OWNER)?;
        Ok(statement
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    /// Removes an installation with its schedules, secrets and its flows' state.
    pub(crate) fn remove_installation(
        &mut self,
        owner: Option<&CustomerId>,
        id: InstallationId,
        revision: u64,
    ) -> Result<Saved, Fail> {
        match self.installation_owner(id)? {
            Some((customer, known))
                if owner.is_none_or(|owner| owner.as_str() == customer) && known == revision.cast_signed() => {}
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

type Spec = (String, String, Option<i64>);

fn specs(schedules: Vec<Schedule>) -> Result<Vec<Spec>, Fail> {
    let specs = schedules.into_iter().map(|schedule| {
        let spec = json(&schedule.spec)?;
        Ok((schedule.flow, spec, schedule.next.map(Timestamp::as_millis)))
    });
    specs.collect()
}
