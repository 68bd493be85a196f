//! The machine's own resolver.

use async_trait::async_trait;
use crosspoint_core::{Code, Error, ErrorExt, Resolve, Result};
use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// How many names are looked up at once. A look-up keeps a thread, and goes on when nobody waits for it any more.
const AT_ONCE: usize = 32;

/// Asks the machine's own resolver. Make one per process.
#[derive(Debug, Clone)]
pub(crate) struct SystemResolver {
    turns: Arc<Semaphore>,
}

impl SystemResolver {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.or_fail(Code::ShuttingDown, "names are not looked up any more")?;
        let host = host.to_owned();
        let found = spawn_blocking(move || {
            let found = (host.as_str(), 0).to_socket_addrs();
            drop(turn);
            found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
        });
        match found.await {
            Ok(found) => found.or_fail(Code::ProviderUnreachable, "the host name does not resolve"),
            Err(lost) => Err(Error::new(Code::Internal, "a look-up of a name was lost").caused_by(lost)),
        }
    }
}
