//! What the kernel tells of processes (`proc_pid_stat(5)`).

use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) nice: i32,
    /// When it began, in ticks since the machine did.
    pub(crate) start: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name stands in parentheses and may hold anything.
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<_> = rest.split(' ').collect();
        Some(Self {
            name: head.split_once(" (")?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            nice: fields.get(16)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// `None` if there is none of this number.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Dead, and not yet waited for.
    pub(crate) fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }
}

/// All of this machine, by number.
pub(crate) fn all() -> BTreeMap<i32, Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| Some((pid, Process::of(pid)?))).collect()
}

/// Of these, those below this process, with the number of steps that lead up to it.
pub(crate) fn below(all: &BTreeMap<i32, Process>) -> impl Iterator<Item = (i32, &Process, usize)> {
    let own = i32::try_from(std::process::id()).unwrap();
    let depth = move |mut pid: i32| {
        let mut depth = 0;
        while pid != own {
            pid = all.get(&pid)?.parent;
            depth += 1;
        }
        Some(depth)
    };
    all.iter()
        .filter(move |(pid, _)| **pid != own)
        .filter_map(move |(pid, process)| Some((*pid, process, depth(*pid)?)))
}
