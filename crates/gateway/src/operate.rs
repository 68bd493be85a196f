//! What operators do with calls that have ended badly.

use crate::{Gateway, gate::Drain};
use crosspoint_core::{CallStatus, Code, DispatchAdmin, Error, InvocationId, Page, Paged, Result, Scope};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

impl Gateway {
    /// Dead letters within a scope, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnsupported`] if the store keeps no dead letters for operators; the store's own errors.
    pub async fn dead_letters(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>> {
        self.admin()?.dead(scope, page).await
    }

    /// Puts calls that have ended without success back to work under new ids, at most `per_second` in a second (at least
    /// one), so that what failed together does not come back together. One answer per call, in order: the new id, or
    /// `None` where there is nothing to redrive within the scope.
    ///
    /// Redriven calls stand in the sideline, behind everything that somebody waits for. Dropping the future leaves the
    /// rest as it was.
    ///
    /// # Errors
    /// As [`Gateway::dead_letters`]. What was redriven before an error stays so; asked again, it is redriven once more.
    ///
    /// ```
    /// # use crosspoint_core::{CustomerId, CustomerScope, Memory, Page, Result, SystemClock};
    /// # use crosspoint_gateway::{Config, Gateway};
    /// # use std::sync::Arc;
    /// async fn redrive_all(gateway: &Gateway, scope: &CustomerScope) -> Result<usize> {
    ///     let dead = gateway.dead_letters(scope.into(), Page::first(100)).await?;
    ///     let ids: Vec<_> = dead.items.iter().map(|call| call.id).collect();
    ///     Ok(gateway.redrive(scope.into(), &ids, 10).await?.into_iter().flatten().count())
    /// }
    /// ```
    pub async fn redrive(
        &self,
        scope: Scope<'_>,
        ids: &[InvocationId],
        per_second: u32,
    ) -> Result<Vec<Option<InvocationId>>> {
        let admin = self.admin()?;
        let mut redriven = Vec::with_capacity(ids.len());
        // Ten steps a second, or as many as there are calls.
        let steps = per_second.clamp(1, 10);
        let chunk = usize::try_from(per_second / steps).unwrap_or(1).max(1);
        let mut next = Instant::now();
        for ids in ids.chunks(chunk) {
            sleep_until(next).await;
            next = Instant::now() + Duration::from_secs(1) / steps;
            redriven.extend(admin.redrive(scope, ids).await?);
            for target in self.inner.all() {
                target.announce(Drain::Sideline);
            }
        }
        Ok(redriven)
    }

    fn admin(&self) -> Result<&dyn DispatchAdmin> {
        let none = || Error::new(Code::StoreUnsupported, "the store has no side for operators");
        self.inner.store.admin().ok_or_else(none)
    }
}
