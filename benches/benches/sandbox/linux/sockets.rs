//! Starts while the host holds many connections: who copies its descriptors pays for each.

use super::{World, posix_spawn};
use criterion::{BenchmarkId, Criterion};
use crosspoint_core::Isolation;
use crosspoint_runtime::bare::SandboxOptions;
use std::{os::unix::net::UnixStream, time::Duration};

pub(super) fn bench(criterion: &mut Criterion) {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let world = World::new(SandboxOptions::new());
    // Its tasks are made before there are connections, as in a host that is asked for runs from the beginning.
    world.once(Isolation::Sandboxed);
    world.once(Isolation::Confined);
    let mut group = criterion.benchmark_group("host_sockets");
    group.sample_size(50).measurement_time(Duration::from_secs(4));
    for count in [0, 1_000, 10_000] {
        let pairs = (0..if measured { count / 2 } else { 1 }).map(|_| UnixStream::pair());
        let Ok(held) = pairs.collect::<Result<Vec<_>, _>>() else {
            println!("host_sockets/{count}: skipped, this process may not open so many");
            continue;
        };
        group.bench_function(BenchmarkId::new("posix_spawn", count), |b| b.iter(posix_spawn));
        for (id, level) in [("sandboxed", Isolation::Sandboxed), ("confined", Isolation::Confined)] {
            group.bench_function(BenchmarkId::new(id, count), |b| b.iter(|| world.once(level)));
        }
        drop(held);
    }
    group.finish();
}
