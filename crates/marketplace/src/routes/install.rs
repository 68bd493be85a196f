//! Setting installations up: install, change, resume. All three end in the same check.

use super::installations::{answer, definition, save, schedules};
use crate::{
    answer::Answer,
    app::{Cx, stale},
    body::{Json, NoBody},
    check::{escape, problems_error},
    config::{self, Completeness, Settings},
    views::{Change, Install, InstallationView},
};
use crosspoint_core::{
    AnyIntegration, Code, ConnectionId, Error, Installation, InstallationId, InstallationState, Kind, Problem, Result,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

pub(super) async fn install(cx: Cx, Json(body): Json<Install>) -> Result<Answer<InstallationView>> {
    let record = create(&cx, body).await?;
    let location = format!("v1/installations/{}", record.id);
    Ok(answer(&cx, record).await?.location(location))
}

/// Installs an integration.
pub(crate) async fn create(cx: &Cx, body: Install) -> Result<Installation> {
    let refuse = |pointer: &str, what: &str| {
        let problem = Problem::new(pointer, what);
        Err(Error::new(Code::InputInvalid, what).with_problems(vec![problem]))
    };
    let Some(integration) = cx.registry().offered(&body.integration) else {
        return refuse("/integration", "there is no such integration");
    };
    let Value::Object(config) = body.config else {
        return refuse(config::PREFIX, "a configuration is an object");
    };
    let now = cx.app.parts.clock.now();
    let id = InstallationId::mint(&*cx.app.parts.clock);
    let customer = cx.principal.customer.clone();
    let mut record = Installation::new(id, customer, &integration.name, &integration.version, now);
    if body.activate {
        record.state = InstallationState::Active;
    }
    record.connections = body.connections;
    let (mut settings, problems) = config::split(&*cx.app.forms.of(&integration)?, config, &record);
    check(cx, &integration, &record, &mut settings, problems).await?;
    config::seal(&*cx.app.parts.vault, settings, &mut record).await?;
    let rows = schedules(cx, &record, &integration, now)?;
    save(cx, record, Some(rows)).await?.ok_or_else(stale)
}

pub(super) async fn change(cx: Cx, Json(body): Json<Change>) -> Result<Answer<InstallationView>> {
    let mut record = cx.installation().await?;
    cx.check_revision(record.revision)?;
    if record.state == InstallationState::Removing {
        return Err(Error::new(Code::Conflict, "it is being removed"));
    }
    let integration = match definition(&cx, &record).await {
        Some(integration) => integration,
        // Its version is gone, so the settings are made for the one that is offered now. The old settings are not
        // carried over by themselves: they may mean something else there.
        None if body.config.is_some() => offered(&cx, &record)?,
        None => return Err(version_missing(&record)),
    };
    let now = cx.app.parts.clock.now();
    let upgraded = record.version != integration.version;
    record.version.clone_from(&integration.version);
    record.updated = now;
    if let Some(connections) = body.connections {
        record.connections = connections;
    }
    let form = cx.app.forms.of(&integration)?;
    let kept = || record.config.as_object().cloned().unwrap_or_default();
    let (mut settings, problems) = config::split(&form, body.config.unwrap_or_else(kept), &record);
    check(&cx, &integration, &record, &mut settings, problems).await?;
    config::seal(&*cx.app.parts.vault, settings, &mut record).await?;
    let mended = record.state == InstallationState::NeedsAttention;
    if mended {
        record.state = InstallationState::Active;
        record.attention = None;
    }
    let rows = match upgraded || mended {
        true => Some(schedules(&cx, &record, &integration, now)?),
        false => None,
    };
    let saved = save(&cx, record, rows).await?.ok_or_else(stale)?;
    answer(&cx, saved).await
}

pub(super) async fn resume(cx: Cx, _: NoBody) -> Result<Answer<InstallationView>> {
    let record = cx.installation().await?;
    match record.state {
        InstallationState::Active => return answer(&cx, record).await,
        InstallationState::Removing => return Err(Error::new(Code::Conflict, "it is being removed")),
        _ => {}
    }
    let saved = activate(&cx, record).await?.ok_or_else(stale)?;
    answer(&cx, saved).await
}

/// Checks everything and lets it run; `None` if somebody else was first.
async fn activate(cx: &Cx, mut record: Installation) -> Result<Option<Installation>> {
    let integration = definition(cx, &record).await.ok_or_else(|| version_missing(&record))?;
    let now = cx.app.parts.clock.now();
    record.state = InstallationState::Active;
    record.attention = None;
    record.updated = now;
    let config = record.config.as_object().cloned().unwrap_or_default();
    let (mut settings, problems) = config::split(&*cx.app.forms.of(&integration)?, config, &record);
    check(cx, &integration, &record, &mut settings, problems).await?;
    record.config = settings.config;
    let rows = schedules(cx, &record, &integration, now)?;
    save(cx, record, Some(rows)).await
}

/// Lets the installations go on that waited for this connection to be authorised again.
pub(super) async fn reconnected(cx: &Cx, connection: ConnectionId, installed: Vec<Installation>) {
    for record in installed {
        let waits = record.state == InstallationState::NeedsAttention
            && record.connections.values().any(|used| *used == connection)
            && matches!(&record.attention, Some(why) if why.code.kind() == Kind::Credentials);
        let id = record.id;
        if waits && let Err(error) = activate(cx, record).await {
            // The credential is stored all the same; the installation can still be resumed by hand.
            tracing::warn!(installation = %id, error = ?error, "an installation still needs attention");
        }
    }
}

fn offered(cx: &Cx, record: &Installation) -> Result<Arc<AnyIntegration>> {
    let offered = cx.registry().offered(&record.integration);
    offered.ok_or_else(|| version_missing(record))
}

/// The same code as the start-up check uses, as a conflict: the caller can do something about it.
fn version_missing(record: &Installation) -> Error {
    Error::new(
        Code::Conflict,
        "the version that is installed is not offered any more: save the settings again for the version that is",
    )
    .with("installation", record.id)
}

/// Refuses a set-up with every problem of its configuration and its connections.
async fn check(
    cx: &Cx,
    integration: &Arc<AnyIntegration>,
    record: &Installation,
    settings: &mut Settings,
    mut problems: Vec<Problem>,
) -> Result<()> {
    let completeness = match record.state {
        InstallationState::Draft => Completeness::Draft,
        _ => Completeness::Full,
    };
    let form = cx.app.forms.of(integration)?;
    let told: Vec<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
    let found = form.problems(integration, &settings.config, completeness);
    problems.extend(found.into_iter().filter(|problem| !told.contains(&problem.pointer)));
    problems.extend(connections(cx, integration, &record.connections, completeness).await?);
    let what = "the settings are not complete, or not right";
    problems_error(Code::ConfigInvalid, what, problems)?;
    if completeness == Completeness::Full {
        settings.config = form.filled(integration, &settings.config)?;
    }
    Ok(())
}

/// Every problem of the connections that are given for an integration.
pub(super) async fn connections(
    cx: &Cx,
    integration: &AnyIntegration,
    given: &BTreeMap<String, ConnectionId>,
    completeness: Completeness,
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut wrong = |name: &str, message: String| {
        problems.push(Problem::new(format!("/connections/{}", escape(name)), message));
    };
    for (name, id) in given {
        let Some(slot) = integration.connections.iter().find(|slot| slot.name == *name) else {
            wrong(name, "is not known here".to_owned());
            continue;
        };
        match cx.store().connections.get(cx.scope(), *id).await? {
            None => wrong(name, "there is no such connection".to_owned()),
            Some(connection) if connection.connector != slot.connector => {
                wrong(name, format!("must be a connection of `{}`", slot.connector));
            }
            Some(_) => {}
        }
    }
    if completeness == Completeness::Full {
        for slot in integration
            .connections
            .iter()
            .filter(|slot| !given.contains_key(&slot.name))
        {
            wrong(&slot.name, "is required: connect first".to_owned());
        }
    }
    Ok(problems)
}
