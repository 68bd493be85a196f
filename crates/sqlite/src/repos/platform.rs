//! `Customers`, `Installations`, `Connections`, `DataKeys` and `Schedules`.

use super::{bad_cursor, covers, from_json, from_word, one_more, owner, paged};
use crate::{Sqlite, fail::store_error, ledger::first, sql};
use async_trait::async_trait;
use crosspoint_core::{
    Code, Connection, ConnectionId, Connections, Customer, CustomerId, CustomerScope, Customers, DataKey, DataKeys,
    Error, Fire, FleetScope, Health, Installation, InstallationId, Installations, Page, Paged, Result,
    SaveInstallation, Saved, Schedule, Schedules, Scope, Sealed, Timestamp,
};
use rusqlite::{OptionalExtension, Params, Row};

type Db = rusqlite::Connection;

/// Runs a query and turns each row into a record.
fn all<T>(db: &Db, text: &str, params: impl Params, record: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(text).map_err(store_error)?;
    let mut rows = statement.query(params).map_err(store_error)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, at: usize) -> Result<T> {
    row.get(at).map_err(store_error)
}

fn time(row: &Row<'_>, at: usize) -> Result<Timestamp> {
    get(row, at).map(Timestamp::from_millis)
}

fn customer_id(row: &Row<'_>, at: usize) -> Result<CustomerId> {
    CustomerId::new(get::<String>(row, at)?)
}

/// Lists of records with ids go by age: the cursor names time and id of the last one.
fn age_cursor(page: &Page) -> Result<(i64, Vec<u8>)> {
    let Some(cursor) = &page.after else {
        // Behind every id, whatever its bytes.
        return Ok((i64::MAX, vec![0xff; 17]));
    };
    let (created, id) = cursor.split_once('.').ok_or_else(bad_cursor)?;
    let id: InstallationId = id.parse().map_err(|_| bad_cursor())?;
    Ok((created.parse().map_err(|_| bad_cursor())?, id.as_bytes().to_vec()))
}

#[async_trait]
impl Customers for Sqlite {
    async fn ensure(&self, scope: &CustomerScope, customer: &Customer) -> Result<()> {
        if *scope.customer() != customer.id {
            return Err(Error::new(Code::NotFound, "the customer is not the one of the scope"));
        }
        let new = customer.clone();
        let known = self.read(move |db| {
            let mut statement = db.prepare_cached(sql::CUSTOMER).map_err(store_error)?;
            let name: Option<String> = statement
                .query_row([new.id.as_str()], |row| row.get(0))
                .optional()
                .map_err(store_error)?;
            Ok(name.as_deref() == Some(new.name.as_str()))
        });
        // This is asked for with every request of a session; nearly always there is nothing to write.
        if known.await? {
            return Ok(());
        }
        let new = customer.clone();
        self.write(move |ledger| ledger.put_customer(&new)).await
    }

    async fn list(&self, _: &FleetScope, page: Page) -> Result<Paged<Customer>> {
        self.read(move |db| {
            let behind = match &page.after {
                None => String::new(),
                Some(cursor) => CustomerId::new(cursor.as_str()).map_err(|_| bad_cursor())?.to_string(),
            };
            let found = all(db, sql::CUSTOMERS, (behind, one_more(&page)), |row| {
                Ok(Customer::new(
                    customer_id(row, 0)?,
                    get::<String>(row, 1)?,
                    time(row, 2)?,
                ))
            })?;
            Ok(paged(found, &page, |customer| customer.id.to_string()))
        })
        .await
    }
}

/// All of it but its secrets.
fn bare(row: &Row<'_>) -> Result<Installation> {
    let id = InstallationId::from_slice(&get::<Vec<u8>>(row, 0)?)?;
    let (integration, version) = (get::<String>(row, 2)?, get::<String>(row, 3)?);
    let mut found = Installation::new(id, customer_id(row, 1)?, integration, version, time(row, 9)?);
    found.state = from_word(get(row, 4)?)?;
    found.attention = match get::<Option<String>>(row, 5)? {
        Some(text) => Some(from_json(&text)?),
        None => None,
    };
    found.config = from_json(&get::<String>(row, 6)?)?;
    found.connections = from_json(&get::<String>(row, 7)?)?;
    found.revision = get::<i64>(row, 8)?.cast_unsigned();
    found.updated = time(row, 10)?;
    Ok(found)
}

/// From a row of a list.
fn installation(db: &Db, row: &Row<'_>) -> Result<Installation> {
    let mut found = bare(row)?;
    let secrets = all(db, sql::SECRETS_OF, [found.id.as_bytes()], |row| secret(row, 0))?;
    found.secrets = secrets.into_iter().collect();
    Ok(found)
}

/// One installation, in one statement: a row for each of its secrets, or one without.
fn one(db: &Db, id: InstallationId) -> Result<Option<Installation>> {
    let mut statement = db.prepare_cached(sql::INSTALLATION).map_err(store_error)?;
    let mut rows = statement.query([id.as_bytes()]).map_err(store_error)?;
    let mut found = None;
    while let Some(row) = rows.next().map_err(store_error)? {
        let installation = match &mut found {
            Some(found) => found,
            none => none.insert(bare(row)?),
        };
        if get::<Option<String>>(row, 11)?.is_some() {
            installation.secrets.extend([secret(row, 11)?]);
        }
    }
    Ok(found)
}

/// Its name, its generation and how it is sealed, from this column on.
fn secret(row: &Row<'_>, first: usize) -> Result<(String, (u64, Sealed))> {
    let generation = get::<i64>(row, first + 1)?.cast_unsigned();
    let sealed = Sealed::from_bytes(get(row, first + 2)?);
    Ok((get::<String>(row, first)?, (generation, sealed)))
}

/// What an installation had at a revision, in place of what it has now.
fn as_of(db: &Db, mut now: Installation, revision: i64) -> Result<Option<Installation>> {
    let id = *now.id.as_bytes();
    let spans = all(db, sql::INSTALLATION_SINCE, [&id], |row| {
        let last = get(row, 2)?;
        Ok(first(get(row, 0)?, get(row, 1)?, last)..=last)
    })?;
    if !spans.iter().any(|span| span.contains(&revision)) {
        let had = all(db, sql::PAST, (&id, revision), |row| {
            let (config, connections) = (get::<String>(row, 2)?, get::<String>(row, 3)?);
            Ok((
                get::<i64>(row, 0)?,
                get(row, 1)?,
                from_json(&config)?,
                from_json(&connections)?,
            ))
        })?;
        let Some((first, version, config, connections)) = had.into_iter().next() else {
            return Ok(None);
        };
        (now.version, now.config, now.connections) = (version, config, connections);
        let secrets = all(db, sql::PAST_SECRETS, (&id, first), |row| secret(row, 0))?;
        now.secrets = secrets.into_iter().collect();
    }
    now.revision = revision.cast_unsigned();
    Ok(Some(now))
}

#[async_trait]
impl Installations for Sqlite {
    async fn save(&self, scope: Scope<'_>, save: SaveInstallation) -> Result<Saved> {
        if !scope.covers(&save.installation.customer) {
            return Ok(Saved::Stale);
        }
        self.write(move |ledger| ledger.save_installation(save)).await
    }

    async fn get(&self, scope: Scope<'_>, id: InstallationId) -> Result<Option<Installation>> {
        let found = self.read_one(id, move |db| one(db, id)).await?;
        Ok(found.filter(|found| scope.covers(&found.customer)))
    }

    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Installation>> {
        let owner = owner(scope);
        self.read(move |db| {
            let ((created, id), limit) = (age_cursor(&page)?, one_more(&page));
            let record = |row: &Row<'_>| installation(db, row);
            let found = match &owner {
                Some(owner) => all(db, sql::INSTALLATIONS_OF, (created, id, limit, owner.as_str()), record),
                None => all(db, sql::INSTALLATIONS, (created, id, limit), record),
            }?;
            Ok(paged(found, &page, |i| format!("{}.{}", i.created.as_millis(), i.id)))
        })
        .await
    }

    async fn as_of(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Option<Installation>> {
        let owner = owner(scope);
        self.read(move |db| {
            let found = one(db, id)?;
            match found.filter(|found| covers(owner.as_ref(), found.customer.as_str())) {
                Some(found) => as_of(db, found, revision.cast_signed()),
                None => Ok(None),
            }
        })
        .await
    }

    async fn remove(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Saved> {
        let owner = owner(scope);
        self.write(move |ledger| ledger.remove_installation(owner.as_ref(), id, revision))
            .await
    }
}

fn connection(row: &Row<'_>) -> Result<Connection> {
    let id = ConnectionId::from_slice(&get::<Vec<u8>>(row, 0)?)?;
    let (connector, scheme) = (get::<String>(row, 2)?, get::<String>(row, 4)?);
    let mut found = Connection::new(id, customer_id(row, 1)?, connector, scheme, time(row, 9)?);
    found.label = get(row, 3)?;
    found.variables = from_json(&get::<String>(row, 5)?)?;
    found.health = from_word(get(row, 6)?)?;
    found.sealed = get::<Option<Vec<u8>>>(row, 7)?.map(Sealed::from_bytes);
    found.generation = get::<i64>(row, 8)?.cast_unsigned();
    found.updated = time(row, 10)?;
    Ok(found)
}

#[async_trait]
impl Connections for Sqlite {
    async fn save(&self, scope: Scope<'_>, connection: &Connection) -> Result<Saved> {
        if !scope.covers(&connection.customer) {
            return Ok(Saved::Stale);
        }
        let new = connection.clone();
        self.write(move |ledger| ledger.save_connection(&new)).await
    }

    async fn get(&self, scope: Scope<'_>, id: ConnectionId) -> Result<Option<Connection>> {
        let one = move |db: &Db| Ok(all(db, sql::CONNECTION, [id.as_bytes()], connection)?.pop());
        let found = self.read_one(id, one).await?;
        Ok(found.filter(|found| scope.covers(&found.customer)))
    }

    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Connection>> {
        let owner = owner(scope);
        self.read(move |db| {
            let ((created, id), limit) = (age_cursor(&page)?, one_more(&page));
            let found = match &owner {
                Some(owner) => all(
                    db,
                    sql::CONNECTIONS_OF,
                    (created, id, limit, owner.as_str()),
                    connection,
                ),
                None => all(db, sql::CONNECTIONS, (created, id, limit), connection),
            }?;
            Ok(paged(found, &page, |c| format!("{}.{}", c.created.as_millis(), c.id)))
        })
        .await
    }

    async fn set_health(&self, scope: Scope<'_>, id: ConnectionId, health: Health) -> Result<()> {
        let owner = owner(scope);
        self.write(move |ledger| ledger.set_health(owner.as_ref(), id, health))
            .await
    }

    async fn remove(&self, scope: Scope<'_>, id: ConnectionId) -> Result<bool> {
        let owner = owner(scope);
        self.write(move |ledger| ledger.remove_connection(owner.as_ref(), id))
            .await
    }
}

#[async_trait]
impl DataKeys for Sqlite {
    async fn keys(&self, scope: &CustomerScope) -> Result<Vec<DataKey>> {
        let customer = scope.customer().clone();
        self.read(move |db| {
            all(db, sql::DATA_KEYS, [customer.as_str()], |row| {
                Ok(DataKey::new(get(row, 0)?, get(row, 1)?, time(row, 2)?))
            })
        })
        .await
    }

    async fn add(&self, scope: &CustomerScope, key: &DataKey) -> Result<Saved> {
        let (customer, key) = (scope.customer().clone(), key.clone());
        self.write(move |ledger| ledger.add_data_key(&customer, &key)).await
    }

    async fn rewrap(&self, scope: &CustomerScope, number: u32, from: &[u8], to: &[u8]) -> Result<Saved> {
        let (customer, from, to) = (scope.customer().clone(), from.to_vec(), to.to_vec());
        self.write(move |ledger| ledger.rewrap(&customer, number, &from, &to))
            .await
    }
}

pub(crate) fn schedule(row: &Row<'_>) -> Result<Schedule> {
    let installation = InstallationId::from_slice(&get::<Vec<u8>>(row, 0)?)?;
    let (flow, spec) = (get::<String>(row, 2)?, from_json(&get::<String>(row, 3)?)?);
    let next = get::<Option<i64>>(row, 4)?.map(Timestamp::from_millis);
    let mut schedule = Schedule::new(installation, customer_id(row, 1)?, flow, spec, next);
    schedule.paused = get::<Option<i64>>(row, 5)?.map(Timestamp::from_millis);
    Ok(schedule)
}

#[async_trait]
impl Schedules for Sqlite {
    async fn due(&self, _: &FleetScope, until: Timestamp, limit: usize) -> Result<Vec<Schedule>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |db| all(db, sql::SCHEDULES_DUE, (until.as_millis(), limit), schedule))
            .await
    }

    async fn soonest(&self, _: &FleetScope) -> Result<Option<Timestamp>> {
        self.read(|db| Ok(all(db, sql::SCHEDULE_SOONEST, [i64::MIN], |row| time(row, 0))?.pop()))
            .await
    }

    async fn of(&self, scope: Scope<'_>, installation: InstallationId) -> Result<Vec<Schedule>> {
        let owner = owner(scope);
        self.read(move |db| {
            let mut found = all(db, sql::SCHEDULES_OF, [installation.as_bytes()], schedule)?;
            found.retain(|schedule| covers(owner.as_ref(), schedule.customer.as_str()));
            Ok(found)
        })
        .await
    }

    async fn fire(&self, _: &FleetScope, fire: Fire) -> Result<Saved> {
        self.write(move |ledger| ledger.fire(fire)).await
    }

    async fn pause(
        &self,
        scope: Scope<'_>,
        installation: InstallationId,
        flow: &str,
        paused: Option<Timestamp>,
        next: Option<Timestamp>,
    ) -> Result<Option<Schedule>> {
        let (owner, flow) = (owner(scope), flow.to_owned());
        self.write(move |ledger| ledger.pause_schedule(owner.as_ref(), installation, &flow, (paused, next)))
            .await
    }
}
