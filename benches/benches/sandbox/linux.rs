//! The bench.

mod memory;
mod sockets;
mod tables;
mod warm;

use criterion::{BatchSize, BenchmarkGroup, Criterion, measurement::WallTime};
use crosspoint_core::{CustomerId, Isolation};
use crosspoint_runtime::bare::{Job, Sandbox, SandboxOptions};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::runtime::Runtime;

pub(super) const TRUE: &str = "/usr/bin/true";

pub(super) struct World {
    pub(super) runtime: Runtime,
    pub(super) sandbox: Sandbox,
    pub(super) customer: CustomerId,
    folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new(options: SandboxOptions) -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            sandbox: Sandbox::new(options),
            customer: CustomerId::new("acme").unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A job that ends at once.
    pub(super) fn job(&self, level: Isolation) -> Job {
        let mut job = Job::new(TRUE);
        if level == Isolation::Confined {
            job.folder = Some(self.folder.path().to_owned());
            job.dir = self.folder.path().to_owned();
        }
        job
    }

    pub(super) async fn run(&self, level: Isolation) {
        let job = self.job(level);
        let mut child = self.sandbox.launch(level, job, &self.customer).await.unwrap();
        let ended = child.wait().await.unwrap();
        assert!(ended.status.success(), "{ended:?}");
    }

    pub(super) fn once(&self, level: Isolation) {
        self.runtime.block_on(self.run(level));
    }
}

pub(super) fn posix_spawn() {
    let mut command = Command::new(TRUE);
    plain(&mut command);
}

fn plain(command: &mut Command) {
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(command.status().unwrap().success());
}

/// The command that gives a program what our sandbox gives it, as far as bubblewrap can.
pub(super) fn bubblewrap() -> Option<PathBuf> {
    let found = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
    let found = found.into_iter().map(PathBuf::from).find(|path| path.is_file());
    if found.is_none() {
        println!("bubblewrap is not installed: its rows are skipped");
    }
    found
}

pub(super) fn in_bubblewrap(bwrap: &Path) {
    let mut command = Command::new(bwrap);
    command.args([
        "--unshare-all",
        "--hostname",
        "sandbox",
        "--new-session",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ]);
    command.args(["--ro-bind", "/usr", "/usr"]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => command.arg("--symlink").arg(target).arg(&path),
            Err(_) if path.is_dir() => command.arg("--ro-bind").arg(&path).arg(&path),
            Err(_) => &mut command,
        };
    }
    for path in ["/etc/ld.so.cache", "/etc/ssl/certs", "/etc/alternatives"] {
        command.args(["--ro-bind-try", path, path]);
    }
    for device in ["null", "zero", "full", "random", "urandom"] {
        let path = format!("/dev/{device}");
        command.args(["--dev-bind", &path, &path]);
    }
    command.args([
        "--proc",
        "/proc",
        "--tmpfs",
        "/w",
        "--chdir",
        "/w",
        "--remount-ro",
        "/",
        TRUE,
    ]);
    plain(&mut command);
}

fn spawn(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.bench_function("posix_spawn", |b| b.iter(posix_spawn));
    if let Some(bwrap) = bubblewrap() {
        group.bench_function("bubblewrap", |b| b.iter(|| in_bubblewrap(&bwrap)));
    }
    let world = World::new(SandboxOptions::new());
    for (id, level) in [("sandboxed", Isolation::Sandboxed), ("confined", Isolation::Confined)] {
        group.bench_function(id, |b| b.iter(|| world.once(level)));
    }
    python(group);
}

/// Each warm run after one has got ready, which is not measured.
fn python(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (cold, warm) = (warm::Python::cold(), warm::Python::warm());
    group.bench_function("cold_python", |b| b.iter(|| cold.once()));
    warm.once();
    warm.once();
    group.bench_function("warm_python", |b| {
        b.iter_batched(|| warm.ready(), |()| warm.once(), BatchSize::PerIteration);
    });
}

pub(super) fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    if std::env::args().any(|argument| argument == "warm") {
        return warm::print(true);
    }
    if !std::env::args().any(|argument| argument == "tables") {
        let mut group = criterion.benchmark_group("spawn");
        group.sample_size(50).measurement_time(Duration::from_secs(5));
        spawn(&mut group);
        group.finish();
        memory::bench(&mut criterion);
        sockets::bench(&mut criterion);
        criterion.final_summary();
    }
    tables::print();
}
