//! The task that fires schedules. Any number of them, in any number of processes, fire each tick once: the store moves a
//! schedule on only if its next tick is still the one that was read.

use crate::{Runtime, attention};
use crosspoint_core::{
    Code, Envelope, ExecutionFilter, ExecutionStatus, Failure, Fire, Installation, InstallationId, InstallationState,
    Missed, Overlap, Page, Result, Schedule, StopSignal, Timestamp, Timetable,
};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// A tick that is fired later than this was missed.
const LATE: Duration = Duration::from_secs(60);

/// Schedules that are read at once.
const BATCH: usize = 100;

/// How often installations that were parked for want of their version are looked at again.
const RELEASE: Duration = Duration::from_secs(60);

impl Runtime {
    /// Fires schedules until it is told to stop.
    ///
    /// Of several ticks that passed while no scheduler ran, only the last one counts. It is fired as any other, unless it
    /// is more than a minute late and the schedule says [`Missed::Skip`]. What the store fails to do is tried again at the
    /// next look. A tick of a version that is not registered here is left to a process that has it.
    ///
    /// Once a minute it also lets installations run again that were parked because their version was missing, if that
    /// version is registered here.
    pub async fn run_scheduler(&self, stop: StopSignal) {
        let mut release = Instant::now() + RELEASE;
        while stop.reason().is_none() {
            if Instant::now() >= release {
                release = Instant::now() + RELEASE;
                if let Err(error) = self.release_installations().await {
                    tracing::warn!(?error, "parked installations could not be looked at");
                }
            }
            let wait = match self.fire_due().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(?error, "the scheduler could not look for schedules that are due");
                    self.poll
                }
            };
            tokio::select! {
                _ = stop.stopped() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Fires what is due, and answers how long to sleep.
    async fn fire_due(&self) -> Result<Duration> {
        let fleet = crate::scope::fleet();
        let schedules = &self.inner.store.schedules;
        // What stays due: it must neither be tried twice in one look nor keep others from being read.
        let mut left: HashSet<(InstallationId, String)> = HashSet::new();
        loop {
            let now = self.inner.clock.now();
            let limit = BATCH + left.len();
            let due = schedules.due(&fleet, now, limit).await?;
            let read = due.len();
            for schedule in due {
                let (installation, flow) = (schedule.installation, schedule.flow.clone());
                if left.contains(&(installation, flow.clone())) {
                    continue;
                }
                if let Err(error) = self.fire(&schedule, now).await {
                    if error.code() == Code::VersionMissing {
                        tracing::debug!(%installation, flow, ?error, "a tick is left to another process");
                    } else {
                        tracing::warn!(%installation, flow, ?error, "a schedule could not be fired");
                    }
                    left.insert((installation, flow));
                }
            }
            if read < limit {
                break;
            }
        }
        if !left.is_empty() {
            return Ok(self.poll);
        }
        let soonest = schedules.soonest(&fleet).await?;
        let now = self.inner.clock.now();
        Ok(soonest.map_or(self.poll, |at| at.since(now).min(self.poll)))
    }

    async fn fire(&self, schedule: &Schedule, now: Timestamp) -> Result<()> {
        let Some(read) = schedule.next else { return Ok(()) };
        let fleet = crate::scope::fleet();
        let ticks = self.timetable.last(&schedule.spec, now);
        let ticks = ticks.and_then(|last| Ok((last, self.timetable.next(&schedule.spec, now)?)));
        let fire = match ticks {
            Ok((last, next)) => {
                let tick = last.map_or(read, |last| last.max(read));
                Fire::new(schedule, read, next, self.starts(schedule, tick, now).await?)
            }
            Err(error) => {
                self.park(schedule, &Failure::from(&error)).await?;
                Fire::new(schedule, read, None, Vec::new())
            }
        };
        // `Stale` means that another scheduler was first.
        self.inner.store.schedules.fire(&fleet, fire).await?;
        Ok(())
    }

    /// What a tick starts: one execution, or none. [`Code::VersionMissing`] means that this process cannot tell.
    async fn starts(&self, schedule: &Schedule, tick: Timestamp, now: Timestamp) -> Result<Vec<Envelope>> {
        let fleet = crate::scope::fleet();
        let found = self
            .inner
            .store
            .installations
            .get((&fleet).into(), schedule.installation)
            .await?;
        let Some(installation) = found.filter(|found| found.state == InstallationState::Active) else {
            return Ok(Vec::new());
        };
        let missed = now.since(tick) > LATE && schedule.spec.missed == Missed::Skip;
        if missed || self.overlaps(&installation, schedule).await? {
            return Ok(Vec::new());
        }
        match self.inner.starter.for_tick(&installation, schedule, tick) {
            Ok(envelope) => Ok(vec![envelope]),
            Err(error) if error.code() == Code::VersionMissing => Err(error),
            Err(error) => {
                tracing::warn!(installation = %installation.id, ?error, "a schedule names a flow that is not there");
                Ok(Vec::new())
            }
        }
    }

    /// Whether executions that have not ended stand in the way of another one.
    async fn overlaps(&self, installation: &Installation, schedule: &Schedule) -> Result<bool> {
        let policy = schedule.spec.overlap;
        if policy == Overlap::Allow {
            return Ok(false);
        }
        let fleet = crate::scope::fleet();
        let executions = &self.inner.store.executions;
        match (
            executions.active(&fleet, installation.id, &schedule.flow).await?,
            policy,
        ) {
            (0, _) => Ok(false),
            // One may wait behind the one that runs; if the only one has not begun, it is the one that waits.
            (1, Overlap::CoalesceOne) => {
                let mut filter = ExecutionFilter::installation(installation.id);
                filter.flow = Some(schedule.flow.clone());
                filter.active = true;
                let active = executions.list((&fleet).into(), &filter, Page::first(1)).await?;
                Ok(active
                    .items
                    .iter()
                    .any(|execution| execution.status == ExecutionStatus::Queued))
            }
            _ => Ok(true),
        }
    }

    async fn park(&self, schedule: &Schedule, why: &Failure) -> Result<()> {
        let fleet = crate::scope::fleet();
        let installations = &*self.inner.store.installations;
        attention::park(installations, (&fleet).into(), schedule.installation, why).await?;
        Ok(())
    }
}
