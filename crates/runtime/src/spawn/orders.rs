//! Orders for the child: a job made ready, so that the child only follows and allocates nothing.

use super::{
    cgroup::Group,
    confined::Grounds,
    filter::Kind,
    ids::Id,
    job::{Input, Job, Stdin},
    landlock::Landlock,
    net::Lease,
    root::INNER_ID,
    step::{Step, Trouble, step},
};
use crosspoint_core::Limits;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Resource, Rlimit, getrlimit},
};
use std::{
    collections::BTreeSet,
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
    sync::Arc,
};

/// The port of the listener in a run's own network namespace.
pub(crate) const PORT: u16 = 8899;

/// What a run is locked in by.
pub(super) struct Locks {
    pub(super) filter: Arc<Vec<libc::sock_filter>>,
    pub(super) landlock: Landlock,
}

/// What a run gets besides its job.
pub(super) struct Grants {
    /// None for a program that locks the run in itself.
    pub(super) locks: Option<Locks>,
    /// `Sandboxed`: its network namespace.
    pub(super) network: Option<Lease>,
    /// `Confined`: the files that it may reach.
    pub(super) grounds: Option<Grounds>,
    /// The customer's user id, where the host is root.
    pub(super) id: Option<Id>,
    /// Its control group, and the file by which the child enters it.
    pub(super) group: Option<(Arc<Group>, OwnedFd)>,
}

/// A folder or file to be made in `/w`.
pub(super) struct Entry {
    pub(super) name: CString,
    pub(super) mode: Mode,
    pub(super) content: Option<Vec<u8>>,
}

/// A tree of the host's to be shown to the run.
pub(super) struct Bind {
    pub(super) source: CString,
    pub(super) target: CString,
    /// Whether the place must be made; it lies in `/w`.
    pub(super) make: bool,
    /// Taken by the spawner.
    pub(super) tree: Option<OwnedFd>,
    pub(super) folder: bool,
}

/// The child's ends of its streams.
pub(super) struct Streams {
    /// Input, output and errors.
    pub(super) standard: [OwnedFd; 3],
    pub(super) messages: Option<OwnedFd>,
    /// From descriptor [`FIRST_MORE`] on.
    pub(super) more: Vec<OwnedFd>,
}

/// The first descriptor behind the standard streams and the messages.
pub(super) const FIRST_MORE: u8 = 4;

/// The host's ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) messages: Option<OwnedFd>,
}

/// All that the child needs, in the memory that it shares.
pub(super) struct Orders {
    pub(super) kind: Kind,
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) dir: CString,
    pub(super) entries: Vec<Entry>,
    pub(super) binds: Vec<Bind>,
    pub(super) streams: Streams,
    pub(super) limits: Vec<(Resource, u64)>,
    /// Options of the tmpfs.
    pub(super) tmpfs: CString,
    pub(super) listen: bool,
    /// The id map: its own user, and who that is outside.
    pub(super) map: CString,
    pub(super) grants: Grants,
}

impl Orders {
    pub(super) fn new(job: &Job, grants: Grants) -> Result<(Self, Ends), Trouble> {
        let kind = if grants.grounds.is_some() {
            Kind::Confined
        } else {
            Kind::Sandboxed
        };
        let mut argv = vec![text(Step::Execute, job.program.as_os_str())?];
        for arg in &job.args {
            argv.push(text(Step::Execute, arg)?);
        }
        let mut envp = Vec::with_capacity(job.env.len());
        for (name, value) in &job.env {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            envp.push(text(Step::Execute, &variable)?);
        }
        let (streams, ends) = streams(job.stdin, job.messages)?;
        let mut made = BTreeSet::new();
        let mut entries = Vec::new();
        let mut binds = Vec::new();
        if kind == Kind::Sandboxed {
            for input in &job.inputs {
                add(input, &mut made, &mut entries)?;
            }
            for name in ["work", "tmp"] {
                add(&Input::folder(name), &mut made, &mut entries)?;
            }
            for (source, target) in &job.read_only {
                binds.push(bind(source, target, &mut made, &mut entries)?);
            }
        }
        let outside = grants.id.as_ref().map_or(0, Id::number);
        let disk = job.limits.disk;
        let orders = Self {
            kind,
            program: text(Step::Execute, job.program.as_os_str())?,
            argv,
            envp,
            dir: text(Step::WorkFolder, job.dir.as_os_str())?,
            entries,
            binds,
            streams,
            limits: limits(&job.limits, kind, grants.grounds.as_ref()),
            tmpfs: words(&format!("mode=0700,size={disk},nr_inodes={}", inodes(disk)))?,
            listen: job.network,
            map: words(&format!("{INNER_ID} {outside} 1\n"))?,
            grants,
        };
        Ok((orders, ends))
    }

    /// Orders to execute a program that makes the sandbox. `words`: what it is called with, its name included; it has no
    /// environment. `more`: descriptors that it gets, from [`FIRST_MORE`] on.
    pub(super) fn through(
        program: &Path,
        words: &[&OsStr],
        job: &Job,
        more: Vec<OwnedFd>,
        grants: Grants,
    ) -> Result<(Self, Ends), Trouble> {
        let argv = words.iter().map(|word| text(Step::Execute, word));
        let (mut streams, ends) = streams(job.stdin, job.messages)?;
        streams.more = more;
        let orders = Self {
            kind: Kind::Bubblewrap,
            program: text(Step::Bubblewrap, program.as_os_str())?,
            argv: argv.collect::<Result<_, _>>()?,
            envp: Vec::new(),
            dir: self::words("/")?,
            entries: Vec::new(),
            binds: Vec::new(),
            streams,
            limits: vec![(Resource::Core, 0)],
            tmpfs: CString::default(),
            listen: false,
            map: CString::default(),
            grants,
        };
        Ok((orders, ends))
    }
}

impl Orders {
    /// What the child must find among the lowest numbers.
    pub(super) fn descriptors(&mut self) -> impl Iterator<Item = &mut OwnedFd> {
        let Self {
            streams, binds, grants, ..
        } = self;
        let own = grants.grounds.iter_mut().flat_map(|grounds| &mut grounds.own);
        let standard = streams.standard.iter_mut();
        standard
            .chain(&mut streams.messages)
            .chain(&mut streams.more)
            .chain(grants.group.iter_mut().map(|(_, entry)| entry))
            .chain(binds.iter_mut().filter_map(|bind| bind.tree.as_mut()))
            .chain(own.map(|ground| &mut ground.path))
    }

    /// The same, when the child needs them no more.
    pub(super) fn into_descriptors(self) -> impl Iterator<Item = OwnedFd> {
        let own = self.grants.grounds.into_iter().flat_map(|grounds| grounds.own);
        let standard = self.streams.standard.into_iter();
        standard
            .chain(self.streams.messages)
            .chain(self.streams.more)
            .chain(self.grants.group.map(|(_, entry)| entry))
            .chain(self.binds.into_iter().filter_map(|bind| bind.tree))
            .chain(own.map(|ground| ground.path))
    }
}

/// A file takes a page at least; more files than pages are no use.
pub(super) fn inodes(disk: u64) -> u64 {
    (disk / 4096).clamp(64, 65_536)
}

fn text(of: Step, value: &OsStr) -> Result<CString, Trouble> {
    CString::new(value.as_bytes()).map_err(|_| Trouble {
        step: of,
        errno: Errno::INVAL,
    })
}

fn words(value: &str) -> Result<CString, Trouble> {
    text(Step::Inputs, OsStr::new(value))
}

/// Adds a folder or file, and the folders that lead to it.
pub(super) fn add(input: &Input, made: &mut BTreeSet<Vec<u8>>, entries: &mut Vec<Entry>) -> Result<(), Trouble> {
    let invalid = Trouble {
        step: Step::Inputs,
        errno: Errno::INVAL,
    };
    let mut components = Vec::new();
    for component in input.name.components() {
        match component {
            Component::Normal(name) => components.push(name.as_bytes()),
            Component::CurDir => {}
            _ => return Err(invalid),
        }
    }
    if components.is_empty() {
        return Err(invalid);
    }
    for depth in 1..=components.len() {
        let name = components.get(..depth).unwrap_or_default().join(&b'/');
        let last = depth == components.len();
        if !made.insert(name.clone()) {
            if last && input.content.is_some() {
                return Err(invalid);
            }
            continue;
        }
        entries.push(Entry {
            name: CString::new(name).map_err(|_| invalid)?,
            mode: Mode::from_raw_mode(if last { input.mode } else { 0o700 }),
            content: input.content.clone().filter(|_| last),
        });
    }
    Ok(())
}

fn bind(source: &Path, target: &Path, made: &mut BTreeSet<Vec<u8>>, entries: &mut Vec<Entry>) -> Result<Bind, Trouble> {
    let refused = Trouble {
        step: Step::Bind,
        errno: Errno::INVAL,
    };
    let mut make = false;
    if let Ok(inside) = target.strip_prefix("/w") {
        make = true;
        let parent = inside.parent().ok_or(refused)?;
        if parent != Path::new("") {
            add(&Input::folder(parent), made, entries).map_err(|_| refused)?;
        }
        if !made.insert(inside.as_os_str().as_bytes().to_vec()) {
            return Err(refused);
        }
    } else {
        let layer = target
            .strip_prefix("/layer")
            .ok()
            .and_then(|n| n.to_str()?.parse::<usize>().ok());
        if target != Path::new("/app") && layer.is_none_or(|n| n >= super::root::LAYERS) {
            return Err(refused);
        }
    }
    if target.components().any(|part| part == Component::ParentDir) {
        return Err(refused);
    }
    Ok(Bind {
        source: text(Step::Bind, source.as_os_str())?,
        target: text(Step::Bind, target.as_os_str())?,
        make,
        tree: None,
        folder: true,
    })
}

pub(super) fn limits(limits: &Limits, kind: Kind, grounds: Option<&Grounds>) -> Vec<(Resource, u64)> {
    let seconds = limits.cpu_ms.div_ceil(1000).max(1);
    let mut all = vec![
        (Resource::Core, 0),
        (Resource::Nofile, u64::from(limits.open_files)),
        // Private memory that can be written to. Not the address space: node and Java reserve far more than they use.
        (Resource::Data, limits.memory),
        (Resource::Fsize, limits.disk),
        (Resource::Cpu, seconds),
        (Resource::Stack, 8 << 20),
        (Resource::Msgqueue, 0),
        (Resource::Memlock, 1 << 20),
    ];
    let mut processes = u64::from(limits.processes);
    if let Some(grounds) = grounds {
        processes = processes.saturating_add(grounds.others);
    }
    all.push((Resource::Nproc, processes));
    debug_assert!(
        kind == Kind::Sandboxed || grounds.is_some(),
        "a confined run has grounds"
    );
    for (resource, wanted) in &mut all {
        let possible = getrlimit(*resource).maximum.unwrap_or(u64::MAX);
        *wanted = (*wanted).min(possible);
    }
    all
}

/// One value for both limits.
pub(super) const fn both(limit: u64) -> Rlimit {
    Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    }
}

fn streams(stdin: Stdin, messages: bool) -> Result<(Streams, Ends), Trouble> {
    let pipe = || step(Step::Pipes, pipe_with(PipeFlags::CLOEXEC));
    let (into, in_end) = match stdin {
        Stdin::Null => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let null = step(Step::Pipes, rustix::fs::open(c"/dev/null", flags, Mode::empty()))?;
            (null, None)
        }
        Stdin::Pipe => {
            let (read, write) = pipe()?;
            (read, Some(write))
        }
    };
    let (out_end, out) = pipe()?;
    let (err_end, err) = pipe()?;
    let (message_end, message) = if messages {
        let (read, write) = pipe()?;
        (Some(read), Some(write))
    } else {
        (None, None)
    };
    let streams = Streams {
        standard: [into, out, err],
        messages: message,
        more: Vec::new(),
    };
    let ends = Ends {
        stdin: in_end,
        stdout: out_end,
        stderr: err_end,
        messages: message_end,
    };
    Ok((streams, ends))
}
