//! Keeps a run from crowding out others on the processors, where no control group does.
//!
//! The kernel shares processors out among threads, so that a run with a hundred of them would get a hundred shares. Where
//! it groups sessions (`kernel.sched_autogroup_enabled`, outside of control groups) a run is a session and has one share; it
//! may not open further ones. Everywhere else, the guard counts the threads of each run that want to run, and makes each the
//! nicer the more they are, so that together they weigh what one thread weighs: 1.25 per nice value. On an idle machine none of
//! this is felt.
//!
//! Not `SCHED_IDLE`: neighbours would have nothing of it, and on a busy machine a crowd that gets no processor time takes long
//! to die when it is killed. Nothing is taken back: ordinary users may not, and a run does not last long. What it starts
//! inherits its place.

use super::{
    confined::{self, Marked},
    guard::Killer,
    hogs::{Hog, Hogs},
    view::{Census, View},
};
use rustix::{
    fd::AsRawFd,
    process::{Pid, getpriority_process, setpriority_process},
};
use std::{
    fs::{read_dir, read_to_string},
    time::Duration,
};

/// So many threads are as nice as can be: there is no more than that, and no time to count on.
pub(super) const CROWD: u32 = 32;

/// Two threads that run at once are what many honest programs have.
const FEW: u32 = 2;

const NICEST: i32 = 19;

/// No run has more; its walk ends here.
const MOST: usize = 4096;

/// How nice each of so many threads has to be, for all of them to weigh as one.
fn niceness(threads: u32) -> i32 {
    if threads <= FEW {
        return 0;
    }
    if threads >= CROWD {
        return NICEST;
    }
    let (mut nice, mut weight) = (0, 1.0);
    while weight < f64::from(threads) && nice < NICEST {
        weight *= 1.25;
        nice += 1;
    }
    nice
}

/// What the guard does about one run.
#[derive(Debug)]
pub(super) struct Fairness {
    killer: Killer,
    nice: i32,
    /// Who wanted to run at the last look: one look may find a crowd by chance.
    runnable: u32,
    used: Duration,
    hogs: Hogs,
    looked: bool,
    /// There if it used most of a processor between the last two looks.
    hog: Option<Hog>,
}

impl Fairness {
    pub(super) fn new(killer: &Killer, hogs: &Hogs) -> Self {
        Self {
            killer: killer.clone(),
            nice: 0,
            runnable: 0,
            used: Duration::ZERO,
            hogs: hogs.clone(),
            looked: false,
            hog: None,
        }
    }

    /// Judges by what a look found, so long after the one before, and the processor time of all.
    pub(super) fn consider(&mut self, census: &Census, processor: Duration, view: &View, since: Duration) {
        if !std::mem::replace(&mut self.looked, true) {
            self.hogs.release_all(&self.killer);
        }
        let used = processor.saturating_sub(self.used);
        self.used = processor;
        if used * 2 < since {
            self.hog = None;
        } else if self.hog.is_none() {
            self.hog = Some(self.hogs.one());
        }
        // Many programs have threads that sleep. It takes a look at each thread to know.
        let runnable = if census.further > 0 && used * 4 >= since {
            view.runnable()
        } else {
            census.runnable
        };
        let wanted = niceness(runnable.min(self.runnable));
        self.runnable = runnable;
        let late = census.nice.is_some_and(|nice| nice < self.nice);
        if wanted > self.nice || late {
            self.make(self.nice.max(wanted));
        }
    }

    /// A look has found a [`CROWD`], which is no chance, and is not over: among so many it takes its time.
    pub(super) fn crowded(&mut self) {
        if self.nice < NICEST {
            self.make(NICEST);
        }
    }

    fn make(&mut self, nice: i32) {
        self.nice = nice;
        for_each_thread(&self.killer, |thread| {
            // The host may be nicer than that, and what it starts with it.
            if getpriority_process(Some(thread)).is_ok_and(|now| now < nice) {
                setpriority_process(Some(thread), nice).ok();
            }
        });
    }
}

/// Calls `each` for each thread of a run by its number on the host. One that ends meanwhile leaves its number to nobody for
/// as long as the kernel has not given out all others.
pub(super) fn for_each_thread(run: &Killer, mut each: impl FnMut(Pid)) {
    if let Some(mark) = run.mark {
        confined::for_each(Marked::Run(mark), |pid| {
            threads(pid.as_raw_nonzero().get(), &mut each);
        })
        .ok();
        return;
    }
    let Some(first) = first(run) else { return };
    let mut tree = vec![first];
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied().filter(|_| next < MOST) {
        next += 1;
        threads(pid, &mut |thread| {
            each(thread);
            let children = format!("/proc/{pid}/task/{}/children", thread.as_raw_nonzero());
            let children = read_to_string(children).unwrap_or_default();
            tree.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        });
    }
}

/// Its first process, by its number on the host.
pub(super) fn first(run: &Killer) -> Option<i32> {
    let about = read_to_string(format!("/proc/self/fdinfo/{}", run.pidfd.as_raw_fd())).ok()?;
    let number = about.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Calls `each` for each thread of a process.
pub(super) fn threads(pid: i32, each: &mut impl FnMut(Pid)) {
    for entry in read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let thread = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(thread) = thread.filter(|thread| *thread > 0).and_then(Pid::from_raw) {
            each(thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_a_run_together_weigh_as_one() {
        assert_eq!([0, 1, 2].map(niceness), [0; 3]);
        for threads in 3..CROWD {
            let weight = f64::from(threads) / 1.25_f64.powi(niceness(threads));
            assert!((0.8..=1.0).contains(&weight), "{threads} weigh {weight}");
        }
        assert_eq!([CROWD, u32::MAX].map(niceness), [NICEST; 2]);
    }
}
