//! What a run says about itself while it goes on: how far it is, and numbers.

use super::Redactor;
use crate::numbers::{Numbers, Series};
use crosspoint_core::{BusinessLog, LeaseRef, MetricKind, Progress, Watch};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// From one write of the progress to the next, at least: people look no oftener, and the store is for all.
const PACE: Duration = Duration::from_secs(2);

/// Characters of its words that are kept.
const LONGEST: usize = 300;

/// Hears one attempt.
#[derive(Debug)]
pub(super) struct Watcher {
    /// What is not written yet; only the newest counts.
    latest: Mutex<Option<Progress>>,
    changed: Notify,
    redactor: Redactor,
    numbers: Arc<Numbers>,
    series: Series,
}

impl Watcher {
    pub(super) fn new(redactor: Redactor, numbers: Arc<Numbers>, series: Series) -> Self {
        Self {
            latest: Mutex::default(),
            changed: Notify::new(),
            redactor,
            numbers,
            series,
        }
    }

    fn take(&self) -> Option<Progress> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Writes down how far the attempt is, until it is dropped. What cannot be written is left out: it is worth no run.
    pub(super) async fn write(&self, log: &dyn BusinessLog, lease: LeaseRef) -> Infallible {
        let fleet = crate::scope::fleet();
        loop {
            self.changed.notified().await;
            let Some(progress) = self.take() else { continue };
            match log.report(&fleet, lease, progress).await {
                Ok(true) => {}
                Ok(false) => std::future::pending::<()>().await,
                Err(error) => tracing::debug!(?error, "how far a run is could not be written"),
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

impl Watch for Watcher {
    fn progress(&self, mut progress: Progress) {
        if let Some(text) = &mut progress.text {
            self.redactor.text(text);
            if let Some((end, _)) = text.char_indices().nth(LONGEST) {
                text.truncate(end);
            }
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.changed.notify_one();
    }

    fn metric(&self, name: &str, kind: MetricKind, value: f64) {
        let mut name = name.to_owned();
        self.redactor.text(&mut name);
        self.numbers.record(&self.series, &name, kind, value);
    }
}
