//! Something that is made when it is first needed, and made anew when it is broken.

use std::sync::Arc;
use tokio::sync::RwLock;

/// Holds the one that is in use.
#[derive(Debug)]
pub(super) struct Renewed<T>(RwLock<Option<Arc<T>>>);

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<T: Send + Sync> Renewed<T> {
    /// The one in use; made by `make`, once for all that wait, if there is none or it is broken. A broken one lives on for as
    /// long as somebody has it.
    pub(super) async fn get<E, F>(
        &self,
        broken: impl Fn(&T) -> bool + Send + Sync,
        make: impl FnOnce() -> F + Send,
    ) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>> + Send,
    {
        let good = |found: &Option<Arc<T>>| found.clone().filter(|one| !broken(one));
        if let Some(one) = good(&*self.0.read().await) {
            return Ok(one);
        }
        let mut place = self.0.write().await;
        if let Some(one) = good(&place) {
            return Ok(one);
        }
        // Its descriptors go before new ones come.
        *place = None;
        let made = Arc::new(make().await?);
        *place = Some(Arc::clone(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn it_is_made_once_and_again_when_broken() {
        let (renewed, made, broken) = (Renewed::default(), AtomicU32::new(0), AtomicU32::new(0));
        let get = async |fails: bool| {
            let make = || async {
                if fails {
                    return Err(());
                }
                Ok(made.fetch_add(1, Ordering::Relaxed) + 1)
            };
            renewed
                .get(|n| *n <= broken.load(Ordering::Relaxed), make)
                .await
                .map(|n| *n)
        };
        assert_eq!(get(true).await, Err(()));
        assert_eq!((get(false).await, get(true).await), (Ok(1), Ok(1)));
        broken.store(1, Ordering::Relaxed);
        assert_eq!(get(true).await, Err(()), "never the broken one");
        assert_eq!((get(false).await, get(false).await), (Ok(2), Ok(2)));
    }
}
