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
//! # Why a task may share the host's memory
//! - **Thread-local storage** (errno, the allocator's caches, std's handles of threads) is that of the thread that made
//!   the task. That thread sleeps in one system call, made without libc and with all signals blocked, until the task has
//!   ended. So the storage has one user at a time, and a task may do what a thread may: allocate, lock, send.
//! - **Locks** of std and of the allocator are futexes in shared memory without owners; they work between processes that
//!   share it. A task is never killed while the host lives: it ends by returning.
//! - **Descriptors** are shared too (`CLONE_FILES`): an `OwnedFd` means the same on both sides.
//! - **Signals**: a task has a table of handlers of its own, all default, and blocks all signals, so that none of the
//!   host's handlers runs in it. One exception: a spawner without namespaces hears of the host's death by a signal
//!   (`confined`); its handler makes system calls only.
//! - **The stack** is a mapping of its own with a guard, freed after the task's end.
//! - **The end of the host**: every task is killed with the thread that made it (`PR_SET_PDEATHSIG`), and the first process
//!   of the ready namespaces takes everything inside with it.
//!
//! # What the child may do
//! It runs on the spawner's second stack, with the same storage, while the spawner sleeps. Its table of descriptors is a
//! copy. It follows `orders` that were made before: system calls through `rustix` and `sys`, no allocation, no lock, no
//! panic. All signals are blocked, and all handlers default, until just before `execve`. It tells a failure by writing one
//! field, which the spawner reads when it wakes. Nobody can look into the host's memory through it in the meantime: it
//! keeps root as its saved user id until its ids are mapped, and its number has no meaning in any other run.
//!
//! # What the kernel does to the host's memory
//! A change of user marks memory as not to be dumped, and the memory is the host's. As root each start does that; the
//! spawner restores the mark at once. A core dump or a debugger that comes in just that instant is refused.
//!
//! # What hosts should know
//! - Drop privileges (`setuid`) before the first run: libc changes the user of all threads, and the sleeping ones answer
//!   only when their tasks end.
//! - An ordinary user's supplementary groups stay with its runs, since only root may drop them; nothing that such a group
//!   opens has a name inside.
//! - After the host's end its tasks are reaped by the machine's first process, in a container by the container's.
#![expect(
    unsafe_code,
    reason = "clone, execve and the calls around them have no safe interface; the text above argues for all of it"
)]

mod cgroup;
mod child;
mod confined;
mod filter;
mod guard;
mod ids;
mod job;
mod landlock;
mod net;
mod options;
mod orders;
mod paths;
mod probe;
mod ready;
mod root;
mod running;
mod spawner;
mod step;
mod sweeper;
mod sys;
mod task;

pub use job::{Input, Job, Stdin};
pub use options::SandboxOptions;
pub(crate) use orders::PORT;
pub use running::{Cause, Child, Ended, Reach};

use cgroup::{Group, Groups};
use confined::{Ground, Grounds, Others, give_folder, shared_grounds};
use crosspoint_core::{CustomerId, Isolation, Result};
use filter::Kind;
use landlock::{Access, Landlock};
use net::{Networks, Sizes};
use orders::{Grants, Orders};
use paths::Visible;
use ready::Ready;
use spawner::Spawner;
use std::sync::{Arc, atomic::Ordering};
use step::{Step, Trouble, io_step};
use sweeper::Sweeper;
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
    sandboxed: OnceCell<Sandboxed>,
    confined: OnceCell<Confined>,
    groups: OnceCell<Option<Groups>>,
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
    ids: Option<Arc<ids::Ids>>,
    others: Others,
    crew: Crew,
}

/// Spawners and their threads.
struct Crew {
    spawners: Vec<Arc<Spawner>>,
    sweeper: Arc<Sweeper>,
    networks: Option<Arc<Networks>>,
}

impl Crew {
    fn start(
        count: usize,
        ready: Option<&Arc<Ready>>,
        networks: Option<Arc<Networks>>,
    ) -> std::result::Result<Self, Trouble> {
        let sweeper = io_step(Step::Thread, Sweeper::start())?;
        let mut crew = Self {
            spawners: Vec::new(),
            sweeper,
            networks,
        };
        for n in 0..count {
            let name = format!("crosspoint-sp{n}");
            let spawner = Spawner::start(&name, ready.cloned(), Arc::clone(&crew.sweeper))?;
            crew.spawners.push(spawner);
        }
        Ok(crew)
    }

    /// The spawner with the least to do.
    fn pick(&self) -> std::result::Result<&Spawner, Trouble> {
        let least = self
            .spawners
            .iter()
            .min_by_key(|spawner| spawner.load.load(Ordering::Relaxed));
        least.map(|spawner| &**spawner).ok_or(Trouble {
            step: Step::Gone,
            errno: rustix::io::Errno::SRCH,
        })
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for spawner in &self.spawners {
            spawner.close();
        }
        if let Some(networks) = &self.networks {
            networks.close();
        }
        self.sweeper.close();
    }
}

impl Sandbox {
    /// A sandbox that starts nothing yet.
    #[must_use]
    pub fn new(options: SandboxOptions) -> Self {
        let visible = Visible::of_host(options.read_only.as_deref());
        let inner = Inner {
            options,
            visible,
            sandboxed: OnceCell::new(),
            confined: OnceCell::new(),
            groups: OnceCell::new(),
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
        if matches!(launched, Err(trouble) if trouble.step == Step::ControlGroup) {
            // Found out by the first run only: from now on without.
            if let Some(Some(groups)) = self.inner.groups.get() {
                groups.refuse();
            }
            launched = self.try_launch(level, &job, customer).await;
        }
        launched.map_err(|trouble| trouble.error(level))
    }

    async fn try_launch(
        &self,
        level: Isolation,
        job: &Job,
        customer: &CustomerId,
    ) -> std::result::Result<Child, Trouble> {
        let groups = self.inner.groups().await;
        let group = groups.and_then(|groups| groups.enter(&job.limits));
        let group = group.map(|(group, entry)| (Arc::new(group), entry));
        if level == Isolation::Sandboxed {
            self.launch_sandboxed(job, customer, group).await
        } else {
            self.launch_confined(job, customer, group).await
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
            filter: Arc::clone(&sandboxed.filter),
            landlock: sandboxed.landlock,
            network: Some(sandboxed.networks.lease(customer.as_str()).await?),
            grounds: None,
            id,
            group,
        };
        let (orders, ends) = Orders::new(job, grants)?;
        let started = sandboxed.crew.pick()?.request(Box::new(orders)).await?;
        Child::new(started, ends, job.limits)
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
            others: if id.is_some() { 0 } else { confined.others.count() },
        };
        let grants = Grants {
            filter: Arc::clone(&confined.filter),
            landlock: confined.landlock,
            network: None,
            grounds: Some(grounds),
            id,
            group,
        };
        let (orders, ends) = Orders::new(job, grants)?;
        let started = confined.crew.pick()?.request(Box::new(orders)).await?;
        Child::new(started, ends, job.limits)
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

    async fn sandboxed(&self) -> std::result::Result<&Sandboxed, Trouble> {
        let make = || async {
            let (options, visible) = (self.options.clone(), self.visible.clone());
            blocking(move || Sandboxed::make(&options, visible)).await
        };
        self.sandboxed.get_or_try_init(make).await
    }

    async fn confined(&self) -> std::result::Result<&Confined, Trouble> {
        let make = || async {
            let (options, visible) = (self.options.clone(), self.visible.clone());
            blocking(move || Confined::make(&options, &visible)).await
        };
        self.confined.get_or_try_init(make).await
    }
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
    fn make(options: &SandboxOptions, visible: Visible) -> std::result::Result<Self, Trouble> {
        let landlock = Landlock::probe()?;
        let ready = Ready::make(visible, options.uids.clone())?;
        let sizes = Sizes {
            ahead: options.networks,
            kept: options.kept_networks,
            uses: options.network_uses,
        };
        let networks = Networks::start(Arc::clone(&ready), sizes)?;
        let crew = Crew::start(options.spawners, Some(&ready), Some(Arc::clone(&networks)));
        let crew = crew.inspect_err(|_| networks.close())?;
        Ok(Self {
            ready,
            filter: Arc::new(filter::program(Kind::Sandboxed)),
            landlock,
            networks,
            crew,
        })
    }
}

impl Confined {
    fn make(options: &SandboxOptions, visible: &Visible) -> std::result::Result<Self, Trouble> {
        let landlock = Landlock::probe()?;
        let ids = if rustix::process::geteuid().is_root() {
            let map = io_step(Step::IdMaps, std::fs::read_to_string("/proc/self/uid_map"))?;
            Some(ids::Ids::new(options.uids.clone(), &ids::extents(&map))?)
        } else {
            None
        };
        Ok(Self {
            filter: Arc::new(filter::program(Kind::Confined)),
            landlock,
            grounds: Arc::new(shared_grounds(visible)),
            ids,
            others: Others::default(),
            crew: Crew::start(options.spawners, None, None)?,
        })
    }
}
