//! What is past its retention goes, a little at a time.

use crosspoint_core::{Clock, DispatchStore, StopSignal};
use std::{sync::Arc, time::Duration};

/// Between rounds, while there is nothing to do.
const PAUSE: Duration = Duration::from_secs(60);
/// Deleted at once; more would make everybody else's commits wait.
const BATCH: usize = 100;

/// Removes what ended longer than `retention` ago, until told to stop.
pub(super) async fn run(store: Arc<dyn DispatchStore>, clock: Arc<dyn Clock>, retention: Duration, stop: StopSignal) {
    loop {
        let removed = match store.admin() {
            None => return,
            Some(admin) => admin.purge(clock.now().minus(retention), BATCH).await,
        };
        let pause = match removed {
            Ok(BATCH) => Duration::from_millis(10),
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "what is past its retention could not be removed; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.stopped() => return,
        }
    }
}
