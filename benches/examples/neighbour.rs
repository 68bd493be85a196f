//! What a customer notices of another one's attack: the time that its own small runs take, quiet and during each attack.
//!
//! By hand: `cargo run --release -p crosspoint-benches --example neighbour [sandboxed|confined] [runs]`. The machine's load
//! stands beside each figure, because it moves them more than any attack: believe those of a quiet machine.
#![cfg_attr(
    all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program that is run by hand")
)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() {
    linux::main();
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux {
    use crosspoint_core::{
        Clock, CustomerId, InstallationId, InvocationId, Isolation, Limits, RunHandle, RunSpec, Runner, Script,
        StopReason, SystemClock, Work,
    };
    use crosspoint_runtime::Subprocess;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    /// Between the starts of the neighbour's runs.
    const PACE: Duration = Duration::from_millis(25);

    /// Each in an endless loop of runs, two at a time.
    const ATTACKS: &[(&str, &str)] = &[
        ("processor, 1 process", "while True: pass"),
        (
            "processor, 8 processes",
            "for _ in range(3): os.fork()\nwhile True: pass",
        ),
        (
            "processor, 8 threads",
            "import hashlib, threading\ndef spin():\n  while True: hashlib.sha256(bytes(1 << 20))\nfor _ in range(8): threading.Thread(target=spin).start()",
        ),
        ("fork bomb", "while True:\n  try: os.fork()\n  except OSError: pass"),
        (
            "threads",
            "import threading\nwhile True:\n  try: threading.Thread(target=time.sleep, args=(1,)).start()\n  except RuntimeError: time.sleep(0.1)",
        ),
        (
            "zombies",
            "while True:\n  try:\n    if os.fork() == 0: os._exit(0)\n  except OSError: break",
        ),
        (
            "memory, one process",
            "held = []\nwhile True: held.append(bytearray(b'x') * (4 << 20))",
        ),
        (
            "memory, 12 processes",
            "for _ in range(12):\n  if os.fork() == 0:\n    held = bytearray(b'x') * (40 << 20)\n    time.sleep(60)\ntime.sleep(60)",
        ),
        (
            "files in memory",
            "n = 0\nwhile True:\n  try: open(os.environ['TMPDIR'] + f'/{n}', 'wb').write(bytes(4 << 20)); n += 1\n  except OSError: break",
        ),
        (
            "inodes",
            "n = 0\nwhile True:\n  try: open(os.environ['TMPDIR'] + f'/{n}', 'wb').close(); n += 1\n  except OSError: break",
        ),
        (
            "a deep tree",
            "for n in range(5000):\n  os.mkdir('n' * 255); os.chdir('n' * 255)",
        ),
        (
            "output",
            "line = b'x' * 65536\nwhile True: os.write(1, line); os.write(2, line)",
        ),
        (
            "short lines",
            "line = b'\\n' * 65536\nwhile True: os.write(1, line); os.write(2, line)",
        ),
        ("starts and ends", "pass"),
    ];

    const START: &str = "import os, time\n";
    const PYTHON: &str = "/usr/bin/python3";

    struct Bench {
        clock: Arc<SystemClock>,
        runner: Subprocess,
        level: Isolation,
    }

    impl Bench {
        async fn start(
            &self,
            customer: &str,
            script: Script,
            limits: Limits,
        ) -> crosspoint_core::Result<Box<dyn RunHandle>> {
            let mut spec = RunSpec::new(
                InvocationId::mint(&*self.clock),
                CustomerId::new(customer).unwrap(),
                InstallationId::mint(&*self.clock),
                "go",
                Work::Script(Arc::new(script.isolation(self.level))),
                self.clock.now().plus(limits.wall()),
            );
            spec.limits = limits;
            self.runner.start(spec).await
        }

        /// How long the neighbour's runs took, sorted.
        #[expect(clippy::disallowed_types, reason = "a bench measures the machine's own time")]
        async fn neighbour(self: &Arc<Self>, runs: usize) -> Vec<Duration> {
            let mut pace = tokio::time::interval(PACE);
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..runs {
                pace.tick().await;
                let bench = Arc::clone(self);
                all.spawn(async move {
                    let began = std::time::Instant::now();
                    let script = Script::inline("sh", "echo 1 > \"$XP_RESULT_FILE\"");
                    let mut run = bench.start("globex", script, Limits::default()).await.unwrap();
                    run.wait().await;
                    began.elapsed()
                });
            }
            let mut times = all.join_all().await;
            times.sort_unstable();
            times
        }

        /// One customer's runs that do harm, one after the other, until told to stop.
        async fn attack(self: Arc<Self>, text: &'static str, stop: Arc<AtomicBool>) {
            while !stop.load(Ordering::Relaxed) {
                let mut limits = Limits::default();
                limits.wall_ms = 5000;
                limits.grace_ms = 0;
                limits.memory = 256 << 20;
                limits.disk = 128 << 20;
                let script = Script::inline(PYTHON, format!("{START}{text}"));
                let Ok(mut run) = self.start("acme", script, limits).await else {
                    continue;
                };
                let ended = tokio::time::timeout(Duration::from_secs(10), run.wait()).await;
                if ended.is_err() {
                    run.cancel(StopReason::Cancelled, Duration::ZERO).await;
                }
            }
        }
    }

    fn at(times: &[Duration], share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few hundred"
        )]
        let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[index].as_secs_f64() * 1000.0
    }

    fn load() -> String {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap();
        text.split(' ').next().unwrap_or_default().to_owned()
    }

    async fn bench(level: Isolation, runs: usize) {
        let clock = Arc::new(SystemClock::new());
        let bench = Arc::new(Bench {
            runner: Subprocess::new(clock.clone()),
            clock,
            level,
        });
        bench.neighbour(runs / 4).await;
        println!("{level}, {runs} runs every {PACE:?}\n");
        println!("| attack | quiet p50 | quiet p99 | p50 | p99 | p99 ratio | load |\n|---|---|---|---|---|---|---|");
        for (name, text) in ATTACKS {
            // Quiet again before each: the machine's other users come and go.
            let quiet = bench.neighbour(runs).await;
            let stop = Arc::new(AtomicBool::new(false));
            let attacks: Vec<_> = (0..2)
                .map(|_| tokio::spawn(Arc::clone(&bench).attack(text, Arc::clone(&stop))))
                .collect();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let during = bench.neighbour(runs).await;
            stop.store(true, Ordering::Relaxed);
            for attack in attacks {
                attack.await.unwrap();
            }
            println!(
                "| {name} | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} | {} |",
                at(&quiet, 0.5),
                at(&quiet, 0.99),
                at(&during, 0.5),
                at(&during, 0.99),
                at(&during, 0.99) / at(&quiet, 0.99),
                load(),
            );
        }
    }

    pub(super) fn main() {
        let mut arguments = std::env::args().skip(1);
        let level = match arguments.next().as_deref() {
            Some("confined") => Isolation::Confined,
            _ => Isolation::Sandboxed,
        };
        let runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(200);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(bench(level, runs));
    }
}
