//! Looking at installations, pausing and removing them.

use super::catalogue::summary;
use crate::{
    answer::{Answer, NoContent},
    app::{Cx, stale},
    body::NoBody,
    config,
    views::{InstallationView, ScheduleView},
};
use crosspoint_core::{
    AnyIntegration, Code, Error, ExecutionFilter, Installation, InstallationId, InstallationState, Page, Paged, Result,
    SaveInstallation, Saved, Schedule, Source, Timestamp,
};
use std::sync::Arc;

pub(super) async fn list(cx: Cx, _: NoBody) -> Result<Answer<Paged<InstallationView>>> {
    let page = cx.store().installations.list(cx.scope(), cx.page()?).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(view(&cx, record).await?);
    }
    Ok(Answer::of(Paged::new(items, page.next)))
}

pub(super) async fn get(cx: Cx, _: NoBody) -> Result<Answer<InstallationView>> {
    let record = cx.installation().await?;
    answer(&cx, record).await
}

/// How often a change that depends on nothing but the state is tried again when somebody else writes at the same time.
const TRIES: usize = 5;

pub(super) async fn pause(cx: Cx, _: NoBody) -> Result<Answer<InstallationView>> {
    for _ in 0..TRIES {
        let mut record = cx.installation().await?;
        match record.state {
            InstallationState::Paused => return answer(&cx, record).await,
            InstallationState::Active | InstallationState::NeedsAttention => {}
            _ => {
                return Err(Error::new(
                    Code::Conflict,
                    "only an installation that runs can be paused",
                ));
            }
        }
        record.state = InstallationState::Paused;
        record.updated = cx.app.parts.clock.now();
        let schedules = cx.store().schedules.of(cx.scope(), record.id).await?;
        let resting = schedules.into_iter().map(|mut schedule| {
            schedule.next = None;
            schedule
        });
        let resting = Some(resting.collect());
        if let Some(record) = save(&cx, record, resting).await? {
            return answer(&cx, record).await;
        }
    }
    Err(stale())
}

pub(super) async fn pause_schedule(cx: Cx, _: NoBody) -> Result<Answer<ScheduleView>> {
    schedule(&cx, true).await
}

pub(super) async fn resume_schedule(cx: Cx, _: NoBody) -> Result<Answer<ScheduleView>> {
    schedule(&cx, false).await
}

async fn schedule(cx: &Cx, paused: bool) -> Result<Answer<ScheduleView>> {
    let record = cx.installation().await?;
    let control = &cx.app.parts.control;
    let schedule = control.pause_schedule(&cx.scope, record.id, cx.param("flow")?, paused);
    Ok(Answer::of(ScheduleView::new(schedule.await?, &*cx.app.parts.timetable)))
}

pub(super) async fn remove(cx: Cx, _: NoBody) -> Result<NoContent> {
    let record = cx.installation().await?;
    cx.check_revision(record.revision)?;
    let removed = cx
        .store()
        .installations
        .remove(cx.scope(), record.id, record.revision)
        .await?;
    if removed != Saved::Applied {
        return Err(stale());
    }
    // Nothing starts any more; what is under way is told to stop. That it could not be told is no reason to say that
    // the installation is still there: an execution without one ends by itself.
    if let Err(error) = stop_all(&cx, record.id).await {
        tracing::warn!(installation = %record.id, error = ?error, "executions of a removed installation go on");
    }
    Ok(NoContent)
}

async fn stop_all(cx: &Cx, installation: InstallationId) -> Result<()> {
    let mut filter = ExecutionFilter::installation(installation);
    filter.active = true;
    let mut page = Page::first(100);
    loop {
        let part = cx.store().executions.list(cx.scope(), &filter, page).await?;
        for execution in part.items {
            cx.app.parts.control.cancel(&cx.scope, execution.id).await?;
        }
        match part.next {
            Some(next) => page = Page::after(next, 100),
            None => return Ok(()),
        }
    }
}

/// Writes a change; the record as it is now, or `None` if somebody else was first.
pub(super) async fn save(
    cx: &Cx,
    record: Installation,
    schedules: Option<Vec<Schedule>>,
) -> Result<Option<Installation>> {
    let id = record.id;
    let mut change = SaveInstallation::new(record);
    change.schedules = schedules;
    if cx.store().installations.save(cx.scope(), change).await? != Saved::Applied {
        return Ok(None);
    }
    // Read back, because the store gives the revision.
    cx.store().installations.get(cx.scope(), id).await
}

/// The schedules of an active installation.
pub(super) fn schedules(
    cx: &Cx,
    record: &Installation,
    integration: &AnyIntegration,
    now: Timestamp,
) -> Result<Vec<Schedule>> {
    let mut all = Vec::new();
    for flow in &integration.flows {
        if let Source::Schedule(spec) = &flow.source {
            let next = match record.state {
                InstallationState::Active => cx.app.parts.timetable.next(spec, now)?,
                _ => None,
            };
            let owner = record.customer.clone();
            all.push(Schedule::new(record.id, owner, flow.name.clone(), spec.clone(), next));
        }
    }
    Ok(all)
}

/// The version that is installed, if it is registered.
pub(super) async fn definition(cx: &Cx, record: &Installation) -> Option<Arc<AnyIntegration>> {
    cx.registry().find(&record.integration, &record.version).await
}

/// An installation with its revision.
pub(super) async fn answer(cx: &Cx, record: Installation) -> Result<Answer<InstallationView>> {
    let revision = record.revision;
    Ok(Answer::of(view(cx, record).await?).revision(revision))
}

async fn view(cx: &Cx, record: Installation) -> Result<InstallationView> {
    let definition = definition(cx, &record).await;
    let offered = cx.registry().offered(&record.integration);
    let title = definition.as_ref().or(offered.as_ref());
    let title = title.map(|integration| integration.title.clone());
    let scheduled = definition.as_ref().is_some_and(|integration| {
        let mut flows = integration.flows.iter();
        flows.any(|flow| matches!(flow.source, Source::Schedule(_)))
    });
    let schedules = match scheduled {
        true => cx.store().schedules.of(cx.scope(), record.id).await?,
        false => Vec::new(),
    };
    Ok(InstallationView {
        id: record.id,
        title: title.unwrap_or_else(|| record.integration.clone()),
        config: config::shown(&record),
        integration: record.integration,
        version: record.version,
        offered_version: offered.as_ref().map(|integration| integration.version.clone()),
        state: record.state,
        attention: record.attention,
        connections: record.connections,
        revision: record.revision,
        created: record.created,
        updated: record.updated,
        schedules: schedules
            .into_iter()
            .map(|schedule| ScheduleView::new(schedule, &*cx.app.parts.timetable))
            .collect(),
        flows: definition
            .map(|integration| integration.flows.iter().map(summary).collect())
            .unwrap_or_default(),
    })
}
