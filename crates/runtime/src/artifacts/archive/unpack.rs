//! Taking an archive apart.
//!
//! The archive is read block by block and handed to the [`Sink`], which alone writes. No path, no link and no kind of
//! file in it is ever acted upon: what is not a plain file or a folder refuses the whole archive. What it unpacks to is
//! counted while it is read, headers included, so that neither an archive of nothing but names nor one that was
//! compressed a thousand times is unpacked to its end.

use super::super::{
    ArtifactLimits, invalid,
    sink::{Sink, refused},
};
use crosspoint_core::{Code, ErrorExt, Result};
use flate2::bufread::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// The longest name and the longest list of attributes that a file may have in front of it.
const LONGEST_EXTENSION: u64 = 64 << 10;
/// What may be unpacked of any archive, whatever its size.
const ALWAYS: u64 = 8 << 20;

/// Unpacks an archive into the sink.
///
/// # Errors
/// [`Code::ArtifactInvalid`] with what is wrong.
pub(in super::super) fn unpack(archive: &Path, limits: &ArtifactLimits, sink: &mut Sink) -> Result<()> {
    let file = File::open(archive).or_fail(Code::ArtifactInvalid, "the archive cannot be read")?;
    let packed = file
        .metadata()
        .or_fail(Code::ArtifactInvalid, "the archive cannot be read")?
        .len();
    if packed > limits.archive {
        let message = format!(
            "the archive has {packed} bytes; at most {} are taken here",
            limits.archive
        );
        return Err(invalid(message));
    }
    let mut reader = BufReader::new(file);
    let start = reader
        .fill_buf()
        .or_fail(Code::ArtifactInvalid, "the archive cannot be read")?;
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    // Each entry has a header, a rest of a block and, at worst, a header with its long name.
    let headers = u64::try_from(limits.entries.saturating_mul(4 * BLOCK)).unwrap_or(u64::MAX);
    let all = limits.total.saturating_add(headers).saturating_add(ALWAYS);
    let by_ratio = packed.saturating_mul(limits.ratio).saturating_add(ALWAYS);
    let mut blocks = match gzip {
        true => Blocks::new(Box::new(MultiGzDecoder::new(reader)), all.min(by_ratio)),
        false => Blocks::new(Box::new(reader), all),
    };
    entries(&mut blocks, sink)?;
    // To the end, so that the checksum of the compression is looked at too.
    io::copy(&mut blocks, &mut io::sink()).map(drop).map_err(unreadable)
}

fn entries(blocks: &mut Blocks, sink: &mut Sink) -> Result<()> {
    let mut long = None;
    while let Some(header) = blocks.header()? {
        let size = header.entry_size().map_err(|_| damaged("an entry has no size"))?;
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName => long = Some(text(blocks.extension(size)?.trim_ascii_end())?),
            EntryType::XHeader => {
                if let Some(path) = attributes(&blocks.extension(size)?)? {
                    long = Some(path);
                }
            }
            // Of the whole archive: nothing that matters here.
            EntryType::XGlobalHeader => drop(blocks.extension(size)?),
            _ => {
                let path = match long.take() {
                    Some(path) => path,
                    None => text(&header.path_bytes())?,
                };
                entry(blocks, sink, &header, &path, size)?;
            }
        }
    }
    Ok(())
}

fn entry(blocks: &mut Blocks, sink: &mut Sink, header: &Header, path: &str, size: u64) -> Result<()> {
    let kind = header.entry_type();
    let mode = header.mode().map_err(|_| damaged("an entry has no mode"))?;
    let folder = kind.is_dir() || (kind == EntryType::Regular && path.ends_with('/'));
    if sink.leaves_out(path.strip_prefix("./").unwrap_or(path)) {
        return blocks.skip(size);
    }
    if folder {
        sink.folder(path)?;
        return blocks.skip(size);
    }
    if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
        let what = match kind {
            EntryType::Symlink => "a symbolic link",
            EntryType::Link => "a hard link",
            EntryType::Block | EntryType::Char => "a device",
            EntryType::Fifo => "a FIFO",
            EntryType::GNUSparse => "a sparse file",
            _ => "of a kind that is not known here",
        };
        return Err(refused(
            path,
            format!("it is {what}: an artifact has plain files and folders only"),
        ));
    }
    let mut content = Content { blocks, left: size };
    sink.file(path, mode, size, &mut content)?;
    blocks.padding(size)
}

fn text(bytes: &[u8]) -> Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a path is not UTF-8"))
}

/// The path among the attributes of the next entry (`length key=value`, one a line), if one is given.
fn attributes(mut rest: &[u8]) -> Result<Option<String>> {
    let wrong = || damaged("the attributes of an entry cannot be read");
    let mut path = None;
    while !rest.is_empty() {
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = rest.get(..blank).and_then(|digits| std::str::from_utf8(digits).ok());
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        let record = rest
            .get(blank + 1..length)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"path" => path = Some(String::from_utf8(value.to_vec()).map_err(|_| damaged("a path is not UTF-8"))?),
            b"size" => return Err(damaged("an entry says its size twice")),
            key if key.starts_with(b"GNU.sparse.") => return Err(damaged("a file is sparse")),
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(path)
}

fn damaged(what: &str) -> crosspoint_core::Error {
    invalid(format!(
        "it is not a tar archive, plain or compressed with gzip, or it is damaged: {what}"
    ))
}

fn unreadable(error: io::Error) -> crosspoint_core::Error {
    match error.downcast::<crosspoint_core::Error>() {
        Ok(ours) => ours,
        Err(error) => damaged(&error.to_string()).caused_by(error),
    }
}

/// The unpacked archive, with an end to how much of it is read.
struct Blocks {
    reader: Box<dyn Read>,
    left: u64,
}

impl Blocks {
    fn new(reader: Box<dyn Read>, most: u64) -> Self {
        Self { reader, left: most }
    }

    /// The next header; `None` at the end mark. An archive without one was cut off.
    fn header(&mut self) -> Result<Option<Header>> {
        let block = self.block()?;
        if block.iter().all(|byte| *byte == 0) {
            let second = self.block()?;
            return match second.iter().all(|byte| *byte == 0) {
                true => Ok(None),
                false => Err(damaged("there is something behind its end")),
            };
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        match header.cksum() {
            Ok(said) if said == sum => Ok(Some(header)),
            _ => Err(damaged("the checksum of a header is wrong")),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
            _ => unreadable(error),
        })?;
        Ok(block)
    }

    /// What stands in front of an entry.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_EXTENSION {
            return Err(damaged("a name is too long"));
        }
        let mut bytes = Vec::new();
        let read = self.by_ref().take(size).read_to_end(&mut bytes).map_err(unreadable)?;
        if u64::try_from(read) != Ok(size) {
            return Err(damaged("it is cut off"));
        }
        self.padding(size)?;
        Ok(bytes)
    }

    fn skip(&mut self, size: u64) -> Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(size), &mut io::sink()).map_err(unreadable)?;
        if skipped != size {
            return Err(damaged("it is cut off"));
        }
        self.padding(size)
    }

    /// What fills the last block of an entry.
    fn padding(&mut self, size: u64) -> Result<()> {
        let block = u64::try_from(BLOCK).unwrap_or(512);
        let rest = size.next_multiple_of(block) - size;
        let read = io::copy(&mut self.by_ref().take(rest), &mut io::sink()).map_err(unreadable)?;
        match read == rest {
            true => Ok(()),
            false => Err(damaged("it is cut off")),
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(invalid(
                "the archive unpacks to more than is taken here, in all or in relation to its own size",
            )));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left -= u64::try_from(count).unwrap_or(self.left).min(self.left);
        Ok(count)
    }
}

/// The content of one entry.
struct Content<'b> {
    blocks: &'b mut Blocks,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blocks.by_ref().take(self.left).read(buffer)?;
        self.left -= u64::try_from(count).unwrap_or(self.left).min(self.left);
        Ok(count)
    }
}
