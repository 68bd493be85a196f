//! What a customer notices of another one's attack: the time that its own small runs take, quiet and during each attack.
//!
//! By hand: `cargo run --release -p crosspoint-benches --example neighbour [sandboxed|confined] [runs] [attack]`.
//!
//! Quiet and attacked rounds take turns. What is printed is of all rounds together, and beside the ratio of the 99th
//! percentiles the least and the greatest of the rounds' own ratios (of their 90th, as a round is short): where these are far
//! apart, others used the machine. Its load stands beside, because it moves the figures more than any attack. `host` is the
//! share of one processor that the host's own threads took, quiet and attacked.
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
    use std::{sync::Arc, time::Duration};
    use tokio::sync::watch;

    /// Between the starts of the neighbour's runs.
    const PACE: Duration = Duration::from_millis(25);

    /// Of each kind.
    const ROUNDS: usize = 4;

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
            "sessions",
            "for _ in range(100):\n  if os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n    while True: pass\ntime.sleep(60)",
        ),
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
        async fn attack(self: Arc<Self>, text: &'static str, mut stop: watch::Receiver<bool>) {
            while !*stop.borrow() {
                let mut limits = Limits::default();
                limits.wall_ms = 5000;
                limits.grace_ms = 0;
                limits.memory = 256 << 20;
                limits.disk = 128 << 20;
                let script = Script::inline(PYTHON, format!("{START}{text}"));
                let Ok(mut run) = self.start("acme", script, limits).await else {
                    continue;
                };
                let ended = tokio::select! {
                    _ = run.wait() => true,
                    _ = stop.changed() => false,
                };
                if !ended {
                    run.cancel(StopReason::Cancelled, Duration::ZERO).await;
                    run.wait().await;
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

    /// Processor time of the host's own threads, in seconds.
    fn own_time() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// What some rounds of one kind have shown.
    #[derive(Default)]
    struct Rounds {
        all: Vec<Duration>,
        each: Vec<f64>,
        host: f64,
        wall: f64,
    }

    impl Rounds {
        #[expect(clippy::disallowed_types, reason = "a bench measures the machine's own time")]
        async fn round(&mut self, bench: &Arc<Bench>, runs: usize) {
            let (began, host) = (std::time::Instant::now(), own_time());
            let times = bench.neighbour(runs).await;
            self.host += own_time() - host;
            self.wall += began.elapsed().as_secs_f64();
            self.each.push(at(&times, 0.9));
            self.all.extend(times);
            self.all.sort_unstable();
        }

        fn share(&self) -> f64 {
            100.0 * self.host / self.wall
        }
    }

    async fn bench(level: Isolation, runs: usize, only: Option<&str>) {
        let clock = Arc::new(SystemClock::new());
        let bench = Arc::new(Bench {
            runner: Subprocess::new(clock.clone()),
            clock,
            level,
        });
        bench.neighbour(runs / 4).await;
        println!("{level}, {ROUNDS} times {} runs every {PACE:?}\n", runs / ROUNDS);
        println!("| attack | quiet p50 | quiet p99 | p50 | p99 | p99 ratio | rounds | host | load |");
        println!("|---|---|---|---|---|---|---|---|---|");
        for (name, text) in ATTACKS
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| name.contains(only)))
        {
            let (mut quiet, mut during) = (Rounds::default(), Rounds::default());
            for _ in 0..ROUNDS {
                quiet.round(&bench, runs / ROUNDS).await;
                let (stop, stopped) = watch::channel(false);
                let attacks: Vec<_> = (0..2)
                    .map(|_| tokio::spawn(Arc::clone(&bench).attack(text, stopped.clone())))
                    .collect();
                tokio::time::sleep(Duration::from_millis(300)).await;
                during.round(&bench, runs / ROUNDS).await;
                stop.send(true).unwrap();
                for attack in attacks {
                    attack.await.unwrap();
                }
            }
            let ratios = quiet
                .each
                .iter()
                .zip(&during.each)
                .map(|(quiet, during)| during / quiet);
            let least = ratios.clone().fold(f64::INFINITY, f64::min);
            println!(
                "| {name} | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} ms | {:.1} | {least:.1} to {:.1} | {:.0} to {:.0} % | {} |",
                at(&quiet.all, 0.5),
                at(&quiet.all, 0.99),
                at(&during.all, 0.5),
                at(&during.all, 0.99),
                at(&during.all, 0.99) / at(&quiet.all, 0.99),
                ratios.fold(0.0, f64::max),
                quiet.share(),
                during.share(),
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
        let runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(400);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(bench(level, runs, arguments.next().as_deref()));
    }
}
