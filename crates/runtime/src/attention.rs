//! Installations that only a person can mend.

use crosspoint_core::{
    Code, Failure, InstallationId, InstallationState, Installations, Result, SaveInstallation, Saved, Scope,
};

/// How often a save that somebody else overtook is tried again.
const TRIES: usize = 3;

/// Marks an active installation as needing attention. Whether it did: one that is in any other state is left alone.
pub(crate) async fn park(
    installations: &dyn Installations,
    scope: Scope<'_>,
    id: InstallationId,
    why: &Failure,
) -> Result<bool> {
    for _ in 0..TRIES {
        let Some(mut installation) = installations.get(scope, id).await? else {
            return Ok(false);
        };
        if installation.state != InstallationState::Active {
            return Ok(false);
        }
        installation.state = InstallationState::NeedsAttention;
        installation.attention = Some(why.clone());
        if installations.save(scope, SaveInstallation::new(installation)).await? == Saved::Applied {
            tracing::warn!(installation = %id, code = why.code.as_str(), "an installation needs attention");
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets an installation run again that was parked because its version was missing.
pub(crate) async fn release(installations: &dyn Installations, scope: Scope<'_>, id: InstallationId) -> Result<bool> {
    for _ in 0..TRIES {
        let Some(mut installation) = installations.get(scope, id).await? else {
            return Ok(false);
        };
        let missing = installation
            .attention
            .as_ref()
            .is_some_and(|why| why.code == Code::VersionMissing);
        if installation.state != InstallationState::NeedsAttention || !missing {
            return Ok(false);
        }
        installation.state = InstallationState::Active;
        installation.attention = None;
        if installations.save(scope, SaveInstallation::new(installation)).await? == Saved::Applied {
            return Ok(true);
        }
    }
    Ok(false)
}
