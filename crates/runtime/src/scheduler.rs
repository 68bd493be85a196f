//! The task that fires schedules. Any number of them, in any number of processes, fire each tick once: the store moves a
//! schedule on only if its next tick is still the one that was read.

use crate::{Runtime, attention};
use crosspoint_core::{
    Code, Control, Envelope, ExecutionFilter, ExecutionStatus, Failure, Fire, Installation, InstallationId,
    InstallationState, Missed, Overlap, Page, Result, Schedule, ScheduleSpec, StopSignal, Timestamp, Timetable,
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
    /// Of several ticks that passed while no scheduler ran, only the last one counts, or with [`Missed::FireAll`] the last
    /// ones. They are fired as any other, unless they are more than a minute late and the schedule says [`Missed::Skip`].
    /// Where [`Overlap`] leaves room for some of them only, the newest are started. What the store fails to do is tried again at the
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
        let fire = match self.ticks(&schedule.spec, read, now) {
            Ok((ticks, next)) => Fire::new(schedule, read, next, self.starts(schedule, &ticks, now).await?),
            Err(error) => {
                self.park(schedule, &Failure::from(&error)).await?;
                Fire::new(schedule, read, None, Vec::new())
            }
        };
        // `Stale` means that another scheduler was first.
        self.inner.store.schedules.fire(&fleet, fire).await?;
        Ok(())
    }

    /// Those ticks since `read` that count, in order, and the one after now.
    fn ticks(
        &self,
        spec: &ScheduleSpec,
        read: Timestamp,
        now: Timestamp,
    ) -> Result<(Vec<Timestamp>, Option<Timestamp>)> {
        let next = self.timetable.next(spec, now)?;
        let most = match spec.missed {
            Missed::FireAll { max } => usize::from(max.max(1)),
            _ => 1,
        };
        let mut ticks = Vec::new();
        let mut until = now;
        while ticks.len() < most {
            match self.timetable.last(spec, until)?.filter(|last| *last > read) {
                Some(last) => {
                    ticks.push(last);
                    until = Timestamp::from_millis(last.as_millis() - 1);
                }
                None => {
                    // The schedule may have been changed since: the tick that was promised counts all the same.
                    ticks.push(read);
                    break;
                }
            }
        }
        ticks.reverse();
        Ok((ticks, next))
    }

    /// What ticks start. [`Code::VersionMissing`] means that this process cannot tell.
    async fn starts(&self, schedule: &Schedule, ticks: &[Timestamp], now: Timestamp) -> Result<Vec<Envelope>> {
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
        let missed = |tick: Timestamp| now.since(tick) > LATE && schedule.spec.missed == Missed::Skip;
        let mut starts = Vec::new();
        for tick in ticks.iter().copied().filter(|tick| !missed(*tick)) {
            match self.inner.starter.for_tick(&installation, schedule, tick) {
                Ok(envelope) => starts.push(envelope),
                Err(error) if error.code() == Code::VersionMissing => return Err(error),
                Err(error) => {
                    tracing::warn!(installation = %installation.id, ?error, "a schedule names a flow that is not there");
                    return Ok(Vec::new());
                }
            }
        }
        if !starts.is_empty() {
            let room = self.room(&installation, schedule).await?;
            starts.drain(..starts.len().saturating_sub(room));
        }
        Ok(starts)
    }

    /// How many executions may be started beside those that have not ended.
    async fn room(&self, installation: &Installation, schedule: &Schedule) -> Result<usize> {
        let policy = schedule.spec.overlap;
        if policy == Overlap::Allow {
            return Ok(usize::MAX);
        }
        let fleet = crate::scope::fleet();
        let executions = &self.inner.store.executions;
        let active = executions.active(&fleet, installation.id, &schedule.flow).await?;
        let active = usize::try_from(active).unwrap_or(usize::MAX);
        Ok(match policy {
            Overlap::AtMost { max } => usize::from(max.max(1)).saturating_sub(active),
            Overlap::Queue { max } => (usize::from(max) + 1).saturating_sub(active),
            Overlap::Replace => {
                if active > 0 {
                    self.cancel_active(installation, &schedule.flow).await?;
                }
                1
            }
            // One may wait behind the one that runs; if the only one has not begun, it is the one that waits.
            Overlap::CoalesceOne if active == 1 => {
                let filter = unfinished(installation, &schedule.flow);
                let found = executions.list((&fleet).into(), &filter, Page::first(1)).await?;
                let waits = found
                    .items
                    .iter()
                    .any(|execution| execution.status == ExecutionStatus::Queued);
                usize::from(!waits)
            }
            _ => usize::from(active == 0),
        })
    }

    /// Cancels what has not ended. Should the replacement then not be stored, the tick is still due and this is done again.
    async fn cancel_active(&self, installation: &Installation, flow: &str) -> Result<()> {
        let (fleet, scope) = (crate::scope::fleet(), crate::scope::of(&installation.customer));
        let filter = unfinished(installation, flow);
        let mut page = Page::first(100);
        loop {
            let found = self.inner.store.executions.list((&fleet).into(), &filter, page).await?;
            for execution in found.items {
                self.cancel(&scope, execution.id).await?;
            }
            match found.next {
                Some(next) => page = Page::after(next, 100),
                None => return Ok(()),
            }
        }
    }

    async fn park(&self, schedule: &Schedule, why: &Failure) -> Result<()> {
        let fleet = crate::scope::fleet();
        let installations = &*self.inner.store.installations;
        attention::park(installations, (&fleet).into(), schedule.installation, why).await?;
        Ok(())
    }
}

fn unfinished(installation: &Installation, flow: &str) -> ExecutionFilter {
    let mut filter = ExecutionFilter::installation(installation.id);
    filter.flow = Some(flow.to_owned());
    filter.active = true;
    filter
}
