//! How much is taken of what comes from outside.

/// How large an artifact may be. Crossing one of these refuses the artifact.
///
/// ```
/// use crosspoint_runtime::artifacts::ArtifactLimits;
/// let mut small = ArtifactLimits::default();
/// small.archive = 1 << 20;
/// assert!(small.archive < ArtifactLimits::default().archive);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactLimits {
    /// The archive itself, in bytes (64 MiB).
    pub archive: u64,
    /// Files and folders (10,000).
    pub entries: usize,
    /// One file, in bytes (64 MiB).
    pub file: u64,
    /// All files together, in bytes (256 MiB).
    pub total: u64,
    /// By what the content may be larger than its compressed archive (100), beyond the first 8 MiB.
    pub ratio: u64,
    /// The path of one file, in bytes (240).
    pub path: usize,
    /// How deep folders may be nested (16).
    pub depth: usize,
}

impl Default for ArtifactLimits {
    fn default() -> Self {
        Self {
            archive: 64 << 20,
            entries: 10_000,
            file: 64 << 20,
            total: 256 << 20,
            ratio: 100,
            path: 240,
            depth: 16,
        }
    }
}

impl ArtifactLimits {
    /// For packages that a package manager has installed: there are more of them, and they are nested deeper.
    pub(super) const fn of_layers() -> Self {
        Self {
            archive: u64::MAX,
            entries: 100_000,
            file: 256 << 20,
            total: 1 << 30,
            ratio: u64::MAX,
            path: 480,
            depth: 48,
        }
    }
}
