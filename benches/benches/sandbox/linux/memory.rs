//! Starts while the host holds much memory: a fork would copy its page tables.

use super::World;
use criterion::{BenchmarkId, Criterion};
use crosspoint_core::Isolation;
use crosspoint_runtime::bare::SandboxOptions;
use std::time::Duration;

const MIB: usize = 1 << 20;

pub(super) fn bench(criterion: &mut Criterion) {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let world = World::new(SandboxOptions::new());
    let mut group = criterion.benchmark_group("host_memory");
    group.sample_size(50).measurement_time(Duration::from_secs(4));
    for size in [50, 1024, 4096] {
        if size > available() / 2 {
            println!("host_memory/{size}: skipped, this machine has not twice as much free");
            continue;
        }
        let held = if measured { size } else { 1 };
        // Every page is written to, else it would not be resident.
        let mut ballast = vec![0_u8; held * MIB];
        ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let id = BenchmarkId::from_parameter(format!("{size} MiB"));
        group.bench_function(id, |b| b.iter(|| world.once(Isolation::Sandboxed)));
        std::hint::black_box(&ballast);
    }
    group.finish();
}

/// Memory that is free, in MiB.
fn available() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}
