//! The spawn core: starts programs that cannot reach the host, its customers or each other. Linux only.
//!
//! This is the only module with `unsafe`. Why it is there, and why it is sound:
//!
//! # How a run starts
//! A fork of the host would copy its page tables: 100 ms at 4 GiB. So a run starts as a child that shares the host's
//! memory (`CLONE_VM`) until it executes its program, and its parent sleeps until then (`CLONE_VFORK`). Namespaces are
//! expensive to build, so that what can be shared is built once: a root file system in namespaces of its own (`ready`,
//! `root`), inherited by each run; network namespaces are made ahead (`net`). Only a process with one thread may enter a
//! user namespace, so the parents of runs, the spawners, are not threads but tasks (`task`): processes that share the
//! host's memory and descriptors for good.
//!
//! ```text
//! host (threads)          ready namespaces: user, pid, mount                 a run: + user, pid, mount, uts, ipc, cgroup
//!   crosspoint-init  -->  first process, sleeps
//!   crosspoint-net   -->  maker of network namespaces
//!   crosspoint-sp0   -->  spawner: enters a network namespace, clone  -->    child: orders, execve, the program
//! ```
//!
//! A host may have `Sandboxed` runs started by bubblewrap instead ([`bubblewrap`]); then a spawner executes that.
//!
//! What runs then is watched by one thread (`guard`), which looks at its processes (`view`), ends what takes too much, and
//! makes crowds step back (`fair`). While it knows of a run that uses a processor without pause, starts keep to the one that
//! they are on (`hogs`). What ended runs leave behind, their files in memory too, is freed by a task beside all else
//! (`sweeper`).
//!
//! # Why a task may share the host's memory
//! - **Thread-local storage** (errno, the allocator's caches, std's handles of threads) is that of the thread that made
//!   the task. That thread sleeps in one system call, made without libc and with all signals blocked, until the task has
//!   ended. So the storage has one user at a time, and a task may do what a thread may: allocate, lock, send.
//! - **Locks** of std and of the allocator are futexes in shared memory without owners; they work between processes that
//!   share it. A task ends by returning. If somebody kills one, a lock that it held is lost, which is a matter of some
//!   instructions in each start; most likely it sleeps, and then nothing is: its thread cleans up (`task`, `desk`), its
//!   runs, which are dead, end with an error, and the next run finds new tasks (`renewed`).
//! - **Descriptors** are shared too (`CLONE_FILES`): an `OwnedFd` means the same on both sides.
//! - **Signals**: a task has a table of handlers of its own, all default, and blocks all signals, so that none of the
//!   host's handlers runs in it. One exception: a spawner without namespaces hears of the host's death by a signal
//!   (`confined`); its handler makes system calls only.
//! - **The stack** is a mapping of its own with a guard, freed after the task's end.
//! - **The end of the host**: every task is killed with the thread that made it (`PR_SET_PDEATHSIG`), and the first process
//!   of the ready namespaces takes everything inside with it.
//!
//! # What the child may do
//! It runs on the spawner's second stack, with the same storage, while the spawner sleeps. It opens its own descriptor in
//! the host's table and then gives itself a table of its own, with copies of the lowest numbers alone, where it finds
//! what it needs (`slots`). It follows `orders` that were made before: system calls through `rustix` and `sys`, no
//! allocation, no lock, no panic. All signals are blocked, and all handlers default, until just before `execve`. It tells
//! its descriptor and a failure by writing one field each, which the spawner reads when it wakes. Nobody can look into
//! the host's memory through it in the meantime: it keeps root as its saved user id until its ids are mapped, and its
//! number has no meaning in any other run.
//!
//! # What the kernel does to the host's memory
//! A change of user marks memory as not to be dumped, and the memory is the host's. As root each start does that; the
//! spawner restores the mark at once. A core dump or a debugger that comes in just that instant is refused.
//!
//! # What hosts should know
//! - Say whether the host may be dumped (`PR_SET_DUMPABLE`) before the first run: what is said later is undone by a run.
//! - Drop privileges (`setuid`) before the first run: libc changes the user of all threads, and the sleeping ones answer
//!   only when their tasks end.
//! - An ordinary user's supplementary groups stay with its runs, since only root may drop them; nothing that such a group
//!   opens has a name inside.
//! - After the host's end its tasks are reaped by the machine's first process, in a container by the container's.
#![expect(
    unsafe_code,
    reason = "clone, execve and the calls around them have no safe interface; the text above argues for all of it"
)]

mod bubblewrap;
mod cgroup;
mod child;
mod confined;
mod crew;
mod desk;
mod fair;
mod filter;
mod frail;
mod guard;
mod hogs;
mod ids;
mod job;
mod landlock;
mod ledger;
mod net;
mod options;
mod orders;
mod paths;
mod probe;
mod rank;
mod ready;
mod renewed;
mod root;
mod running;
mod slots;
mod spawner;
mod step;
mod sweeper;
mod sys;
mod task;
mod tmpfs;
mod view;

pub use job::{Input, Job, Stdin};
pub use options::SandboxOptions;
pub(crate) use orders::PORT;
pub use running::{Cause, Child, Ended, Reach};
pub use tmpfs::Tmpfs;

use bubblewrap::{Bubblewrap, Failure};
use cgroup::{Group, Groups};
use confined::{Ground, Grounds, Others, give_folder, shared_grounds};
use crew::Crew;
use crosspoint_core::{CustomerId, Isolation, Result};
use filter::Kind;
use hogs::Hogs;
use ids::Ids;
use landlock::{Access, Landlock};
use net::{Networks, Sizes};
use orders::{Grants, Locks, Orders};
use paths::Visible;
use ready::Ready;
use renewed::Renewed;
use slots::Floor;
use std::sync::Arc;
use step::{Step, Trouble};
use tokio::sync::OnceCell;

/// Starts runs. Cheap to clone; the namespaces and helper tasks behind it are made when they are first needed, and end
/// with the last clone and the last run.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    options: SandboxOptions,
    visible: Visible,
    sandboxed: Renewed<Sandboxed>,
    confined: Renewed<Confined>,
    bubblewrap: Renewed<Bubblewrap>,
    groups: OnceCell<Option<Groups>>,
    /// One for all levels, and for all crews that there will be.
    ids: OnceCell<Option<Arc<Ids>>>,
    hogs: Hogs,
    floor: Floor,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What runs at `Sandboxed` need.
struct Sandboxed {
    ready: Arc<Ready>,
    filter: Arc<Vec<libc::sock_filter>>,
    landlock: Landlock,
    networks: Arc<Networks>,
    crew: Crew,
}

/// What runs at `Confined` need.
struct Confined {
    filter: Arc<Vec<libc::sock_filter>>,
    landlock: Landlock,
    grounds: Arc<Vec<Ground>>,
    ids: Option<Arc<Ids>>,
    others: Others,
    crew: Crew,
}

impl Sandbox {
    /// A sandbox that starts nothing yet.
    #[must_use]
    pub fn new(options: SandboxOptions) -> Self {
        let visible = Visible::of_host(options.read_only.as_deref());
        let inner = Inner {
            options,
            visible,
            sandboxed: Renewed::default(),
            confined: Renewed::default(),
            bubblewrap: Renewed::default(),
            groups: OnceCell::new(),
            ids: OnceCell::new(),
            hogs: Hogs::default(),
            floor: Floor::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a run.
    ///
    /// # Errors
    /// [`IsolationUnavailable`] if this machine does not allow the level, with what is missing and how to get it;
    /// [`ScriptNotStarted`] if the program or its files are at fault, or if there is too little of something at the moment.
    ///
    /// [`IsolationUnavailable`]: crosspoint_core::Code::IsolationUnavailable
    /// [`ScriptNotStarted`]: crosspoint_core::Code::ScriptNotStarted
    pub async fn launch(&self, level: Isolation, job: Job, customer: &CustomerId) -> Result<Child> {
        if !matches!(level, Isolation::Sandboxed | Isolation::Confined) {
            let missing = "the spawn core starts runs at the levels confined and sandboxed";
            return Err(crate::isolation_unavailable(level, Isolation::Sandboxed, missing));
        }
        let mut launched = self.try_launch(level, &job, customer).await;
        if matches!(launched, Err(Failure::Step(trouble)) if trouble.step == Step::ControlGroup) {
            // Found out by the first run only: from now on without.
            if let Some(Some(groups)) = self.inner.groups.get() {
                groups.refuse();
            }
            launched = self.try_launch(level, &job, customer).await;
        }
        launched.map_err(|failure| failure.error(level))
    }

    /// Whether sandboxed runs are started by bubblewrap.
    pub(crate) fn is_bubblewrap(&self) -> bool {
        self.inner.options.bubblewrap.is_some()
    }

    /// The version of bubblewrap that starts sandboxed runs, once it is known.
    pub(crate) async fn bubblewrap(&self) -> Option<String> {
        let program = self.inner.options.bubblewrap.as_deref()?;
        let found = self.inner.bubblewrap(program).await.ok()?;
        Some(found.version.clone())
    }

    async fn try_launch(
        &self,
        level: Isolation,
        job: &Job,
        customer: &CustomerId,
    ) -> std::result::Result<Child, Failure> {
        let groups = self.inner.groups().await;
        let group = groups.and_then(|groups| groups.enter(&job.limits));
        let group = group.map(|(group, entry)| (Arc::new(group), entry));
        match &self.inner.options.bubblewrap {
            _ if level == Isolation::Confined => Ok(self.launch_confined(job, customer, group).await?),
            None => Ok(self.launch_sandboxed(job, customer, group).await?),
            Some(program) => {
                let bubblewrap = self.inner.bubblewrap(program).await?;
                bubblewrap.launch(job, customer, group).await
            }
        }
    }

    async fn launch_sandboxed(
        &self,
        job: &Job,
        customer: &CustomerId,
        group: Entry,
    ) -> std::result::Result<Child, Trouble> {
        let sandboxed = self.inner.sandboxed().await?;
        let id = sandboxed
            .ready
            .ids
            .as_ref()
            .map(|ids| ids.hold(customer.as_str()))
            .transpose()?;
        let grants = Grants {
            locks: Some(Locks {
                filter: Arc::clone(&sandboxed.filter),
                landlock: sandboxed.landlock,
            }),
            network: Some(sandboxed.networks.lease(customer.as_str()).await?),
            grounds: None,
            id,
            group,
        };
        let (orders, ends) = Orders::new(job, grants)?;
        let started = sandboxed.crew.start_run(Box::new(orders)).await?;
        sandboxed.crew.watch(started, ends, job.limits)
    }

    async fn launch_confined(
        &self,
        job: &Job,
        customer: &CustomerId,
        group: Entry,
    ) -> std::result::Result<Child, Trouble> {
        let confined = self.inner.confined().await?;
        let folder = job.folder.clone().filter(|_| !job.network).ok_or(Trouble {
            step: Step::Folder,
            errno: rustix::io::Errno::INVAL,
        })?;
        let id = confined
            .ids
            .as_ref()
            .map(|ids| ids.hold(customer.as_str()))
            .transpose()?;
        if let Some(id) = &id {
            give_folder(&folder, id.number())?;
        }
        let mut own = vec![Ground::new(Step::Folder, &folder, Access::Own)?];
        for (source, _) in &job.read_only {
            own.push(Ground::new(Step::Bind, source, Access::Read)?);
        }
        let grounds = Grounds {
            shared: Arc::clone(&confined.grounds),
            own,
            others: if id.is_some() { 0 } else { confined.others.count()? },
        };
        let grants = Grants {
            locks: Some(Locks {
                filter: Arc::clone(&confined.filter),
                landlock: confined.landlock,
            }),
            network: None,
            grounds: Some(grounds),
            id,
            group,
        };
        let (orders, ends) = Orders::new(job, grants)?;
        let started = confined.crew.start_run(Box::new(orders)).await?;
        confined.crew.watch(started, ends, job.limits)
    }
}

/// A run's control group, and the file by which it enters.
type Entry = Option<(Arc<Group>, rustix::fd::OwnedFd)>;

impl Inner {
    /// Where control groups can be made, if anywhere.
    async fn groups(&self) -> Option<&Groups> {
        if !self.options.control_groups {
            return None;
        }
        let find = || async {
            let chosen = self.options.cgroup.clone();
            blocking(move || Ok(Groups::find(chosen.as_deref())))
                .await
                .unwrap_or(None)
        };
        self.groups
            .get_or_init(find)
            .await
            .as_ref()
            .filter(|groups| !groups.refused())
    }

    async fn ids(&self) -> std::result::Result<Option<Arc<Ids>>, Trouble> {
        let make = async || {
            let uids = self.options.uids.clone();
            blocking(move || Ids::of_host(uids)).await
        };
        self.ids.get_or_try_init(make).await.cloned()
    }

    async fn means(&self) -> std::result::Result<Means, Trouble> {
        Ok(Means {
            options: self.options.clone(),
            visible: self.visible.clone(),
            ids: self.ids().await?,
            hogs: self.hogs.clone(),
            floor: self.floor.clone(),
        })
    }

    async fn sandboxed(&self) -> std::result::Result<Arc<Sandboxed>, Trouble> {
        let make = || async {
            let means = self.means().await?;
            blocking(move || Sandboxed::make(means)).await
        };
        self.sandboxed.get(|sandboxed| sandboxed.crew.is_broken(), make).await
    }

    async fn bubblewrap(&self, program: &std::path::Path) -> std::result::Result<Arc<Bubblewrap>, Trouble> {
        let make = || async {
            let (program, means) = (program.to_owned(), self.means().await?);
            blocking(move || Bubblewrap::make(program, means)).await
        };
        self.bubblewrap
            .get(|bubblewrap| bubblewrap.crew.is_broken(), make)
            .await
    }

    async fn confined(&self) -> std::result::Result<Arc<Confined>, Trouble> {
        let make = || async {
            let means = self.means().await?;
            blocking(move || Confined::make(means)).await
        };
        self.confined.get(|confined| confined.crew.is_broken(), make).await
    }
}

/// What a level is made of.
struct Means {
    options: SandboxOptions,
    visible: Visible,
    ids: Option<Arc<Ids>>,
    hogs: Hogs,
    floor: Floor,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, Trouble> + Send + 'static,
) -> std::result::Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Trouble {
        step: Step::Thread,
        errno: rustix::io::Errno::CANCELED,
    }))
}

impl Sandboxed {
    fn make(means: Means) -> std::result::Result<Self, Trouble> {
        let options = &means.options;
        let landlock = Landlock::probe()?;
        let ready = Ready::make(means.visible.beside_own(), means.ids)?;
        let sizes = Sizes {
            ahead: options.networks,
            kept: options.kept_networks,
            uses: options.network_uses,
        };
        let networks = Networks::start(Arc::clone(&ready), sizes)?;
        let shared = Some(Arc::clone(&networks));
        let crew = Crew::start(options.spawners, Some(&ready), shared, &means.hogs, &means.floor);
        let crew = crew.inspect_err(|_| networks.close())?;
        Ok(Self {
            ready,
            filter: Arc::new(filter::program(Kind::Sandboxed)?),
            landlock,
            networks,
            crew,
        })
    }
}

impl Confined {
    fn make(means: Means) -> std::result::Result<Self, Trouble> {
        let landlock = Landlock::probe()?;
        Ok(Self {
            filter: Arc::new(filter::program(Kind::Confined)?),
            landlock,
            grounds: Arc::new(shared_grounds(&means.visible)),
            ids: means.ids,
            others: Others::default(),
            crew: Crew::start(means.options.spawners, None, None, &means.hogs, &means.floor)?,
        })
    }
}
