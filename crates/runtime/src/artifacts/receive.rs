//! An archive that comes in piece by piece.

use super::Artifacts;
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{Code, Error, ErrorExt, Incoming, PublishOptions, Published, Result};
use tempfile::TempPath;
use tokio::{fs::File, io::AsyncWriteExt};

/// Writes to a temporary file, which goes with it.
#[derive(Debug)]
pub(super) struct Upload {
    artifacts: Artifacts,
    file: File,
    path: TempPath,
    left: u64,
}

impl Upload {
    pub(super) async fn begin(artifacts: &Artifacts) -> Result<Self> {
        let staging = artifacts.inner.staging.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::Builder::new().prefix("upload-").tempfile_in(staging));
        let made = made
            .await
            .or_fail(Code::Internal, "a temporary file could not be made")?;
        let (file, path) = made
            .or_fail(Code::StoreUnavailable, "a temporary file cannot be made")?
            .into_parts();
        Ok(Self {
            artifacts: artifacts.clone(),
            file: File::from_std(file),
            path,
            left: artifacts.inner.limits.archive,
        })
    }
}

#[async_trait]
impl Incoming for Upload {
    async fn write(&mut self, part: Bytes) -> Result<()> {
        let size = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            let most = self.artifacts.inner.limits.archive;
            Error::new(Code::BodyTooLarge, format!("an archive has at most {most} bytes here"))
        })?;
        self.file
            .write_all(&part)
            .await
            .or_fail(Code::StoreUnavailable, "the archive cannot be written")
    }

    async fn publish(mut self: Box<Self>, options: PublishOptions) -> Result<Published> {
        self.file
            .flush()
            .await
            .or_fail(Code::StoreUnavailable, "the archive cannot be written")?;
        self.artifacts.publish(&self.path, &options).await
    }
}
