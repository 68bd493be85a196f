//! What ended long ago goes, a little at a time.

use crate::gateway::{Inner, Stage};
use std::{sync::Weak, time::Duration};
use tokio::time::sleep;

/// Between rounds.
const PAUSE: Duration = Duration::from_secs(600);
/// Deleted at once; more would make everybody else's commits wait.
const BATCH: usize = 100;
/// Between the batches of one round.
const BREATH: Duration = Duration::from_millis(10);

/// Removes what ended longer than the retention ago, as long as the gateway is there and runs.
pub(crate) async fn always(gateway: Weak<Inner>) {
    loop {
        sleep(PAUSE).await;
        while let Some(inner) = gateway.upgrade().filter(|inner| inner.stage() == Stage::Running) {
            let before = inner.clock.now().minus(inner.config.retention);
            let Some(admin) = inner.store.admin() else { return };
            match admin.purge(before, BATCH).await {
                Ok(BATCH) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what is past its retention could not be removed; trying again");
                    break;
                }
            }
            drop(inner);
            sleep(BREATH).await;
        }
        if gateway.strong_count() == 0 {
            return;
        }
    }
}
