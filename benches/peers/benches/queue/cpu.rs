//! Processor time of a thread that writes: what it costs, whoever else is busy on the machine.

use std::{collections::HashMap, fs, time::Duration};

/// A measurement: the time that counts, and the writer's processor time where it is known.
#[derive(Clone, Copy)]
pub struct Took {
    pub wall: Duration,
    pub writer: Option<Duration>,
}

impl From<Duration> for Took {
    fn from(wall: Duration) -> Self {
        Self { wall, writer: None }
    }
}

/// A look at what the threads of a name have used so far.
pub struct Meter {
    name: &'static str,
    before: HashMap<u32, Duration>,
}

impl Meter {
    /// The kernel keeps 15 characters of a thread's name.
    pub fn start(name: &'static str) -> Self {
        let before = used(name);
        Self { name, before }
    }

    /// What those that still live have used since then; `None` where the kernel does not tell.
    pub fn stop(self) -> Option<Duration> {
        let after = used(self.name);
        let since = |(thread, used): (&u32, &Duration)| {
            used.saturating_sub(self.before.get(thread).copied().unwrap_or_default())
        };
        (!after.is_empty()).then(|| after.iter().map(since).sum())
    }
}

fn used(name: &str) -> HashMap<u32, Duration> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return HashMap::new();
    };
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let its = fs::read_to_string(path.join("comm")).ok()?;
        if !name.starts_with(its.trim_end()) {
            return None;
        }
        let stat = fs::read_to_string(path.join("schedstat")).ok()?;
        let nanos = stat.split_whitespace().next()?.parse().ok()?;
        Some((path.file_name()?.to_str()?.parse().ok()?, Duration::from_nanos(nanos)))
    };
    threads.filter_map(of).collect()
}
