//! Making an archive of a folder.

use super::super::{ArtifactLimits, gather, invalid, listing};
use crosspoint_core::{Code, ContentDigest, ErrorExt, Result};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};
use tar::{Builder, EntryType, Header};

/// Packs an author's folder as it would be published: the same files are left out, the same are refused, and the digest of
/// the archive is the one that is answered. The same folder always makes the same bytes.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use crosspoint_runtime::artifacts::{ArtifactLimits, pack};
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("crosspoint.json"), "{}")?;
/// let archive = folder.path().with_extension("tar.gz");
/// let digest = pack(folder.path(), &archive, &ArtifactLimits::default())?;
/// assert!(std::fs::metadata(&archive)?.len() > 0);
/// # std::fs::remove_file(archive)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Code::ArtifactInvalid`] with the path of what may not be published; [`Code::StoreUnavailable`] if the archive cannot
/// be written.
pub fn pack(folder: &Path, archive: &Path, limits: &ArtifactLimits) -> Result<ContentDigest> {
    if !folder.is_dir() {
        return Err(invalid("there is no such folder").with("folder", folder.display()));
    }
    let clean = tempfile::tempdir().or_fail(Code::StoreUnavailable, "a temporary folder cannot be made")?;
    gather::from(folder, clean.path(), limits)?;
    write(clean.path(), archive).or_fail(Code::StoreUnavailable, "the archive cannot be written")?;
    listing::digest(clean.path())
}

fn write(folder: &Path, archive: &Path) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let file = BufWriter::new(File::create(archive)?);
    let mut builder = Builder::new(GzEncoder::new(file, Compression::default()));
    for listed in listing::list(folder)? {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if listed.executable { 0o755 } else { 0o644 });
        header.set_size(listed.size);
        let content = File::open(folder.join(&listed.path))?;
        builder.append_data(&mut header, &listed.path, content)?;
    }
    let mut file = builder.into_inner()?.finish()?;
    file.flush()?;
    Ok(())
}
