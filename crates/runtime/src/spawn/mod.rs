//! The spawn core: starts programs that cannot reach the host, its customers or each other. Linux only.
//!
//! This is the only module with `unsafe`. (Text follows.)
#![expect(
    unsafe_code,
    reason = "clone, execve and the calls around them have no safe interface; see the text above"
)]

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

use confined::{Ground, Grounds, give_folder, shared_grounds};
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
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a run.
    ///
    /// # Errors
    /// [`IsolationUnavailable`](crosspoint_core::Code::IsolationUnavailable) if this machine does not allow the level, with what is missing and
    /// how to get it; [`ScriptNotStarted`](crosspoint_core::Code::ScriptNotStarted) if the program or its files are at fault, or if there is too
    /// little of something at the moment.
    pub async fn launch(&self, level: Isolation, job: Job, customer: &CustomerId) -> Result<Child> {
        let launched = match level {
            Isolation::Sandboxed => self.launch_sandboxed(job, customer).await,
            Isolation::Confined => self.launch_confined(job, customer).await,
            other => {
                let missing = "the spawn core starts runs at the levels confined and sandboxed";
                return Err(crate::isolation_unavailable(other, Isolation::Sandboxed, missing));
            }
        };
        launched.map_err(|trouble| trouble.error(level))
    }

    async fn launch_sandboxed(&self, job: Job, customer: &CustomerId) -> std::result::Result<Child, Trouble> {
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
            groups: Vec::new(),
        };
        let (orders, ends) = Orders::new(&job, grants)?;
        let started = sandboxed.crew.pick()?.request(Box::new(orders)).await?;
        Child::new(started, ends, job.limits)
    }

    async fn launch_confined(&self, job: Job, customer: &CustomerId) -> std::result::Result<Child, Trouble> {
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
            others: 0,
        };
        let grants = Grants {
            filter: Arc::clone(&confined.filter),
            landlock: confined.landlock,
            network: None,
            grounds: Some(grounds),
            id,
            groups: Vec::new(),
        };
        let (orders, ends) = Orders::new(&job, grants)?;
        let started = confined.crew.pick()?.request(Box::new(orders)).await?;
        Child::new(started, ends, job.limits)
    }
}

impl Inner {
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
            crew: Crew::start(options.spawners, None, None)?,
        })
    }
}
