//! Looking at an artifact without a host.

use super::{ArtifactLimits, AuthorPolicy, Manifest, check, gather, layers, listing};
use crosspoint_core::{Clock, Code, ContentDigest, ErrorExt, Result, Schemas, SystemClock};
use std::path::Path;

/// What an artifact is, as far as it can be told without the host that it is for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspected {
    /// What it says about itself.
    pub manifest: Manifest,
    /// The digest of its content.
    pub digest: ContentDigest,
    /// What its author may want to know, in sentences.
    pub warnings: Vec<String>,
}

/// Checks a folder or an archive in the author's own repository, before any host is asked: its files, its manifest and its
/// lock files. Which connectors and interpreters a host has, only the host knows.
///
/// ```
/// use crosspoint_core::Schemas;
/// use crosspoint_runtime::artifacts::{ArtifactLimits, AuthorPolicy, inspect};
/// use std::path::Path;
/// fn check(folder: &Path, schemas: &dyn Schemas) -> crosspoint_core::Result<()> {
///     let inspected = inspect(folder, &ArtifactLimits::default(), &AuthorPolicy::new(), schemas)?;
///     println!("{} {}", inspected.manifest.name, inspected.digest);
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`Code::ArtifactInvalid`] with every problem.
pub fn inspect(
    source: &Path,
    limits: &ArtifactLimits,
    policy: &AuthorPolicy,
    schemas: &dyn Schemas,
) -> Result<Inspected> {
    let folder = tempfile::tempdir().or_fail(Code::StoreUnavailable, "a temporary folder cannot be made")?;
    let left_out = gather::from(source, folder.path(), limits)?;
    let manifest = check::read(folder.path(), policy, schemas, SystemClock::new().now())?;
    schemas.compile(&manifest.config)?;
    let mut warnings = gather::told(&left_out);
    warnings.extend(layers::check(&manifest, folder.path())?);
    Ok(Inspected {
        digest: listing::digest(folder.path())?,
        manifest,
        warnings,
    })
}
