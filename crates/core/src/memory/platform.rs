//! Customers, installations, connections, data keys, schedules.

use super::{Data, Memory, page_of};
use crate::{
    Code, Connection, ConnectionId, Connections, Customer, CustomerScope, Customers, DataKey, DataKeys, Enqueue,
    Envelope, Error, Fire, FleetScope, Health, Installation, InstallationId, Installations, Page, Paged, Result,
    SaveInstallation, Saved, Schedule, Schedules, Scope, Timestamp,
};
use async_trait::async_trait;

impl Data {
    fn start_all(&mut self, starts: Vec<Envelope>, now: Timestamp) {
        for envelope in starts {
            self.enqueue(Enqueue::queued(envelope), now);
        }
    }

    fn save_installation(&mut self, scope: Scope<'_>, save: SaveInstallation, now: Timestamp) -> Saved {
        let mut new = save.installation;
        let id = new.id;
        let (known, owner) = self
            .installations
            .get(&id)
            .map_or((0, None), |old| (old.revision, Some(&old.customer)));
        if known != new.revision || owner.is_some_and(|owner| *owner != new.customer) || !scope.covers(&new.customer) {
            return Saved::Stale;
        }
        new.revision += 1;
        new.updated = now;
        self.keep(&new, now);
        self.installations.insert(id, new);
        if let Some(schedules) = save.schedules {
            self.replace_schedules(id, schedules);
        }
        self.start_all(save.starts, now);
        Saved::Applied
    }

    fn replace_schedules(&mut self, id: InstallationId, schedules: Vec<Schedule>) {
        let mut fresh = Vec::with_capacity(schedules.len());
        for mut schedule in schedules {
            let place = (id, schedule.flow.clone());
            let known = self.schedules.get(&place).and_then(|known| known.paused);
            schedule.paused = known.or(schedule.paused);
            schedule.next = schedule.next.filter(|_| schedule.paused.is_none());
            fresh.push((place, schedule));
        }
        self.schedules.retain(|(installation, _), _| *installation != id);
        self.schedules.extend(fresh);
    }
}

#[async_trait]
impl Customers for Memory {
    async fn ensure(&self, scope: &CustomerScope, customer: &Customer) -> Result<()> {
        if *scope.customer() != customer.id {
            return Err(Error::new(Code::NotFound, "the customer is not the one of the scope"));
        }
        let mut data = self.data();
        let known = data
            .customers
            .entry(customer.id.clone())
            .or_insert_with(|| customer.clone());
        known.name.clone_from(&customer.name);
        Ok(())
    }

    async fn list(&self, _: &FleetScope, page: Page) -> Result<Paged<Customer>> {
        let data = self.data();
        page_of(
            data.customers
                .values()
                .map(|customer| (customer.id.clone(), customer.clone())),
            &page,
        )
    }
}

#[async_trait]
impl Installations for Memory {
    async fn save(&self, scope: Scope<'_>, save: SaveInstallation) -> Result<Saved> {
        Ok(self.transact(|data, now| data.save_installation(scope, save, now)))
    }

    async fn get(&self, scope: Scope<'_>, id: InstallationId) -> Result<Option<Installation>> {
        Ok(self
            .data()
            .installations
            .get(&id)
            .filter(|i| scope.covers(&i.customer))
            .cloned())
    }

    async fn as_of(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Option<Installation>> {
        let found = self.data().as_of(id, revision);
        Ok(found.filter(|found| scope.covers(&found.customer)))
    }

    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Installation>> {
        let data = self.data();
        let mut all: Vec<&Installation> = data
            .installations
            .values()
            .filter(|i| scope.covers(&i.customer))
            .collect();
        all.sort_by_key(|i| std::cmp::Reverse((i.created, i.id)));
        page_of(all.into_iter().map(|i| (i.id, i.clone())), &page)
    }

    async fn remove(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Saved> {
        Ok(self.transact(|data, _| {
            if data
                .installations
                .get(&id)
                .is_none_or(|i| !scope.covers(&i.customer) || i.revision != revision)
            {
                return Saved::Stale;
            }
            data.installations.remove(&id);
            data.pasts.remove(&id);
            data.schedules.retain(|(installation, _), _| *installation != id);
            data.state.retain(|(installation, _), _| *installation != id);
            Saved::Applied
        }))
    }
}

#[async_trait]
impl Connections for Memory {
    async fn save(&self, scope: Scope<'_>, connection: &Connection) -> Result<Saved> {
        let mut data = self.data();
        if !scope.covers(&connection.customer) {
            return Ok(Saved::Stale);
        }
        match data.connections.get_mut(&connection.id) {
            None => {
                data.connections.insert(connection.id, connection.clone());
            }
            Some(known) if known.generation + 1 == connection.generation && known.customer == connection.customer => {
                let created = known.created;
                *known = connection.clone();
                known.created = created;
            }
            Some(_) => return Ok(Saved::Stale),
        }
        Ok(Saved::Applied)
    }

    async fn get(&self, scope: Scope<'_>, id: ConnectionId) -> Result<Option<Connection>> {
        Ok(self
            .data()
            .connections
            .get(&id)
            .filter(|c| scope.covers(&c.customer))
            .cloned())
    }

    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Connection>> {
        let data = self.data();
        let mut all: Vec<&Connection> = data
            .connections
            .values()
            .filter(|c| scope.covers(&c.customer))
            .collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.created, c.id)));
        page_of(all.into_iter().map(|c| (c.id, c.clone())), &page)
    }

    async fn set_health(&self, scope: Scope<'_>, id: ConnectionId, health: Health) -> Result<()> {
        if let Some(connection) = self
            .data()
            .connections
            .get_mut(&id)
            .filter(|c| scope.covers(&c.customer))
        {
            connection.health = health;
        }
        Ok(())
    }

    async fn remove(&self, scope: Scope<'_>, id: ConnectionId) -> Result<bool> {
        let mut data = self.data();
        let visible = data.connections.get(&id).is_some_and(|c| scope.covers(&c.customer));
        Ok(visible && data.connections.remove(&id).is_some())
    }
}

#[async_trait]
impl DataKeys for Memory {
    async fn keys(&self, scope: &CustomerScope) -> Result<Vec<DataKey>> {
        Ok(self.data().data_keys.get(scope.customer()).cloned().unwrap_or_default())
    }

    async fn add(&self, scope: &CustomerScope, key: &DataKey) -> Result<Saved> {
        let mut data = self.data();
        let keys = data.data_keys.entry(scope.customer().clone()).or_default();
        if keys.iter().any(|known| known.number == key.number) {
            return Ok(Saved::Stale);
        }
        keys.push(key.clone());
        keys.sort_by_key(|key| key.number);
        Ok(Saved::Applied)
    }

    async fn rewrap(&self, scope: &CustomerScope, number: u32, from: &[u8], to: &[u8]) -> Result<Saved> {
        let mut data = self.data();
        let keys = data.data_keys.entry(scope.customer().clone()).or_default();
        match keys.iter_mut().find(|key| key.number == number && key.wrapped == from) {
            Some(key) => {
                key.wrapped = to.to_vec();
                Ok(Saved::Applied)
            }
            None => Ok(Saved::Stale),
        }
    }
}

#[async_trait]
impl Schedules for Memory {
    async fn due(&self, _: &FleetScope, until: Timestamp, limit: usize) -> Result<Vec<Schedule>> {
        let data = self.data();
        let mut due: Vec<Schedule> = data
            .schedules
            .values()
            .filter(|s| s.next.is_some_and(|next| next <= until))
            .cloned()
            .collect();
        due.sort_by_key(|schedule| schedule.next);
        due.truncate(limit);
        Ok(due)
    }

    async fn soonest(&self, _: &FleetScope) -> Result<Option<Timestamp>> {
        Ok(self
            .data()
            .schedules
            .values()
            .filter_map(|schedule| schedule.next)
            .min())
    }

    async fn of(&self, scope: Scope<'_>, installation: InstallationId) -> Result<Vec<Schedule>> {
        let data = self.data();
        Ok(data
            .schedules
            .values()
            .filter(|s| s.installation == installation && scope.covers(&s.customer))
            .cloned()
            .collect())
    }

    async fn fire(&self, _: &FleetScope, fire: Fire) -> Result<Saved> {
        Ok(self.transact(|data, now| {
            let Some(schedule) = data.schedules.get_mut(&(fire.installation, fire.flow)) else {
                return Saved::Stale;
            };
            if schedule.next != Some(fire.scheduled) {
                return Saved::Stale;
            }
            schedule.next = fire.next;
            data.start_all(fire.starts, now);
            Saved::Applied
        }))
    }

    async fn pause(
        &self,
        scope: Scope<'_>,
        installation: InstallationId,
        flow: &str,
        paused: Option<Timestamp>,
        next: Option<Timestamp>,
    ) -> Result<Option<Schedule>> {
        let mut data = self.data();
        let known = data.schedules.get_mut(&(installation, flow.to_owned()));
        let Some(schedule) = known.filter(|schedule| scope.covers(&schedule.customer)) else {
            return Ok(None);
        };
        (schedule.paused, schedule.next) = match paused {
            Some(since) => (Some(schedule.paused.unwrap_or(since)), None),
            None => (None, next),
        };
        Ok(Some(schedule.clone()))
    }
}
