//! What is to be run, in plain words.

use crosspoint_core::Limits;
use std::{ffi::OsString, path::PathBuf};

/// What is to be run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// The program's file, as the run sees it.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working folder, as the run sees it.
    pub dir: PathBuf,
    /// `Confined`: the folder of the host's that is the run's own. `Sandboxed` has `/w`, in memory; through bubblewrap, this is
    /// given to the customer's user, so that what is in it can be shown.
    pub folder: Option<PathBuf>,
    /// `Sandboxed` only: what lies in `/w` when it starts. Folders on the way are made.
    pub inputs: Vec<Input>,
    /// What else it may read: a folder or file of the host's, and where it lies inside (`/app`, `/layer/0` to `/layer/7`,
    /// or below `/w`). `Confined` shows it where it lies on the host.
    pub read_only: Vec<(PathBuf, PathBuf)>,
    /// Its standard input.
    pub stdin: Stdin,
    /// Whether descriptor 3 is a pipe out of it.
    pub messages: bool,
    /// What it may use.
    pub limits: Limits,
    /// Whether it gets a listener on its own loopback, served from outside. `Sandboxed` only.
    pub network: bool,
}

impl Job {
    /// A program without arguments, environment or inputs, with the usual limits, in the folder `/w`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: PathBuf::from("/w"),
            folder: None,
            inputs: Vec::new(),
            read_only: Vec::new(),
            stdin: Stdin::Null,
            messages: false,
            limits: Limits::default(),
            network: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}

/// A folder or a file that lies in `/w` when the run starts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Input {
    /// Its name, relative to `/w`, without `..`.
    pub name: PathBuf,
    /// A file's content; a folder has none.
    pub content: Option<Vec<u8>>,
    /// Its permissions.
    pub mode: u32,
}

impl Input {
    /// A folder.
    #[must_use]
    pub fn folder(name: impl Into<PathBuf>) -> Self {
        let (name, content, mode) = (name.into(), None, 0o700);
        Self { name, content, mode }
    }

    /// A file.
    #[must_use]
    pub fn file(name: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        let (name, content) = (name.into(), Some(content.into()));
        Self { name, content, mode }
    }
}

/// Where standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing comes.
    Null,
    /// A pipe that the host writes to.
    Pipe,
}
