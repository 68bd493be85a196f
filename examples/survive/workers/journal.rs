//! What flows write down outside of the store, each line as it happens: the effects that they have.

use crate::Done;
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use tokio::time::{Instant, sleep};

pub fn file(folder: &Path) -> PathBuf {
    folder.join("journal")
}

/// One run begins: it has read its memory, and nobody knows yet whether it will end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    pub flow: String,
    pub customer: String,
    pub execution: String,
    /// The key of its effects.
    pub key: String,
    pub attempt: u32,
    /// What it remembers of the runs before it.
    pub count: u64,
    pub worker: String,
    pub at: i64,
}

impl Begin {
    /// Appends the line, in one piece.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let Self {
            flow,
            customer,
            execution,
            key,
            attempt,
            count,
            worker,
            at,
        } = self;
        let line = format!("{flow} {customer} {execution} {key} {attempt} {count} {worker} {at}\n");
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(line.as_bytes())
    }
}

impl FromStr for Begin {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let [flow, customer, execution, key, attempt, count, worker, at] = words[..] else {
            return Err(format!("not a line of the journal: {line}"));
        };
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{error}: {line}"));
        Ok(Self {
            flow: flow.to_owned(),
            customer: customer.to_owned(),
            execution: execution.to_owned(),
            key: key.to_owned(),
            attempt: u32::try_from(number(attempt)?).unwrap_or(u32::MAX),
            count: number(count)?,
            worker: worker.to_owned(),
            at: i64::try_from(number(at)?).unwrap_or(i64::MAX),
        })
    }
}

/// All lines, in order.
pub struct Journal(pub Vec<Begin>);

impl Journal {
    pub fn read(folder: &Path) -> Done<Self> {
        let text = std::fs::read_to_string(file(folder))?;
        let lines: Result<Vec<Begin>, String> = text.lines().map(str::parse).collect();
        Ok(Self(lines?))
    }
}

/// Waits until so many runs have begun.
pub async fn wait_for(folder: &Path, runs: u64, most: Duration) -> Done<()> {
    let (mut known, mut since) = (0, Instant::now());
    loop {
        let text = std::fs::read(file(folder)).unwrap_or_default();
        let begun = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        if begun >= runs {
            return Ok(());
        }
        if begun > known {
            (known, since) = (begun, Instant::now());
        } else if since.elapsed() > most {
            return Err(format!("{begun} runs have begun, and none has within {most:?}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
