//! Tails, rates and the end of a tree.

use super::{World, bubblewrap, in_bubblewrap, posix_spawn, warm};
use crosspoint_core::{CustomerId, Isolation};
use crosspoint_runtime::bare::{Job, SandboxOptions};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long nothing happens between two paced runs.
const PACE: Duration = Duration::from_millis(10);
const USED_ONCE: &str = "sandboxed, network used once";
const RECYCLED: &str = "sandboxed, network recycled";

/// Runs of one contender in a row before it is the next one's turn: the machine's own speed changes, and is to change for all.
const BLOCK: usize = 10;

type Contender<'a> = (&'a str, Box<dyn FnMut() + 'a>);

pub(super) fn print() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let blocks = if measured { 40 } else { 1 };
    println!(
        "\npaced, {} ms apart, in turns of {BLOCK}: us p50, p90, p99 of {}",
        PACE.as_millis(),
        blocks * BLOCK
    );
    let once = || SandboxOptions::new().reuse_networks(0, 1);
    let recycled = World::new(SandboxOptions::new());
    let used_once = World::new(once());
    let grouped = World::new(SandboxOptions::new().control_groups(true));
    let mut contenders: Vec<Contender<'_>> = vec![("posix_spawn", Box::new(posix_spawn))];
    if let Some(bwrap) = bubblewrap() {
        contenders.push(("bubblewrap", Box::new(move || in_bubblewrap(&bwrap))));
    }
    for (name, world, level) in [
        (USED_ONCE, &used_once, Isolation::Sandboxed),
        (RECYCLED, &recycled, Isolation::Sandboxed),
        ("sandboxed, in a control group", &grouped, Isolation::Sandboxed),
        ("confined", &recycled, Isolation::Confined),
    ] {
        contenders.push((name, Box::new(move || world.once(level))));
    }
    paced(&mut contenders, blocks);

    warm::print(measured);

    let slices = if measured { 7 } else { 1 };
    println!("\nruns a second, two callers, in turns: median, least and most of {slices} slices of 0.5 s");
    let worlds = [
        (USED_ONCE, World::new(once()), Isolation::Sandboxed),
        (RECYCLED, World::new(SandboxOptions::new()), Isolation::Sandboxed),
        ("confined", World::new(SandboxOptions::new()), Isolation::Confined),
    ];
    let mut rates = vec![Vec::new(); worlds.len() + 1];
    for _ in 0..slices {
        rates[0].push(plain_rate());
        for ((_, world, level), rates) in worlds.iter().zip(&mut rates[1..]) {
            world.once(*level);
            rates.push(rate(world, *level));
        }
    }
    let names = std::iter::once("posix_spawn").chain(worlds.iter().map(|(name, ..)| *name));
    for (name, mut rates) in names.zip(rates) {
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        println!("{name:40} {:8.0} {least:8.0} {most:8.0}", rates[rates.len() / 2]);
    }

    let trees = if measured { 40 } else { 1 };
    println!("\nfrom the kill to the reaped end of 100 processes, ms p50, p90, p99 of {trees}");
    let mut times: Vec<_> = (0..trees).map(|_| tree(&recycled)).collect();
    times.sort();
    let at = |share: f64| quantile(&times, share).as_secs_f64() * 1e3;
    println!("{:40} {:8.2} {:8.2} {:8.2}", "sandboxed", at(0.5), at(0.9), at(0.99));
}

/// One after another, with a pause in between, and a block to begin with that does not count.
#[expect(clippy::disallowed_methods, reason = "nothing is to happen in between")]
fn paced(contenders: &mut [Contender<'_>], blocks: usize) {
    let mut times = vec![Vec::new(); contenders.len()];
    for block in 0..=blocks {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            for _ in 0..BLOCK {
                std::thread::sleep(PACE);
                let took = time(run);
                if block > 0 {
                    times.push(took);
                }
            }
        }
    }
    for ((name, _), mut times) in contenders.iter().zip(times) {
        times.sort();
        row(name, &times);
    }
}

/// Started this far apart, however long each takes, after a second of the same.
#[expect(clippy::disallowed_methods, reason = "nothing is to happen in between")]
pub(super) fn paced_by(pace: Duration, runs: usize, mut run: impl FnMut()) -> Vec<Duration> {
    let mut once = || {
        let took = time(&mut run);
        std::thread::sleep(pace.saturating_sub(took));
        took
    };
    for _ in 0..runs.min(20) {
        once();
    }
    let mut times: Vec<_> = (0..runs).map(|_| once()).collect();
    times.sort();
    times
}

#[expect(clippy::disallowed_types, reason = "wall time is measured")]
fn time(run: &mut (impl FnMut() + ?Sized)) -> Duration {
    let started = std::time::Instant::now();
    run();
    started.elapsed()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index"
)]
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub(super) fn row(name: &str, sorted: &[Duration]) {
    let at = |share: f64| quantile(sorted, share).as_secs_f64() * 1e6;
    println!("{name:40} {:8.0} {:8.0} {:8.0}", at(0.5), at(0.9), at(0.99));
}

/// Two threads that each start a plain process when their last one has ended.
#[expect(clippy::disallowed_types, reason = "wall time is measured")]
fn plain_rate() -> f64 {
    let caller = || {
        let started = std::time::Instant::now();
        let mut runs = 0_u32;
        while started.elapsed() < Duration::from_millis(500) {
            posix_spawn();
            runs += 1;
        }
        f64::from(runs) / started.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(caller);
        caller() + other.join().unwrap()
    })
}

/// Two callers that each start a run when their last one has ended.
fn rate(world: &World, level: Isolation) -> f64 {
    let slice = Duration::from_millis(500);
    let caller = async || {
        let started = tokio::time::Instant::now();
        let mut runs = 0_u32;
        while started.elapsed() < slice {
            world.run(level).await;
            runs += 1;
        }
        f64::from(runs) / started.elapsed().as_secs_f64()
    };
    let (one, two) = world.runtime.block_on(async { tokio::join!(caller(), caller()) });
    one + two
}

/// Kills a hundred processes.
fn tree(world: &World) -> Duration {
    let script = "i=0; while [ $i -lt 99 ]; do sleep 600 & i=$((i+1)); done; \
                  while [ $(ls -d /proc/[0-9]* | wc -l) -lt 100 ]; do :; done; echo ready; sleep 600";
    let mut job = Job::new("/bin/sh").arg("-c").arg(script);
    job.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    world.runtime.block_on(async {
        let customer = CustomerId::new("tree").unwrap();
        let mut child = world
            .sandbox
            .launch(Isolation::Sandboxed, job, &customer)
            .await
            .unwrap();
        let mut word = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
        let started = tokio::time::Instant::now();
        child.kill();
        child.wait().await.unwrap();
        started.elapsed()
    })
}
