//! Runs cases over many seeds and prints mean, range and goal of every figure.
//! `cargo run -p crosspoint-simulator --release -- --case w02 --seeds 10`

use crosspoint_simulator::{
    Report,
    case::{self, Case},
    run, table,
};
use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

const USAGE: &str = "usage: crosspoint-simulator [--case NAME|FILE|all]... [--seeds N] [--first N] [--threads N]
    [--policy knee|aimd|gradient2|vegas|sticky|fifo|lifo|known|fixed:N] [--initial N] [--figures A,B,..] [--trace] [--json]
    [--list]

--case     a bundled case, a JSON file, or all of them (default w02); may be given several times
--seeds    how many seeds (default 10), from --first on (default 1001)
--policy   instead of the one in the case; --initial: where a learnt limit starts
--figures  only these figures
--trace    limits, calls at the target, workers, held and stored calls of the first seed, by half seconds
--json     one line a run";

struct Options {
    cases: Vec<Case>,
    seeds: u64,
    first: u64,
    threads: usize,
    figures: Vec<String>,
    trace: bool,
    json: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut kept = true;
    for case in &options.cases {
        match many(case, &options) {
            Ok(reports) => kept &= show(case, reports, &options),
            Err(problem) => {
                eprintln!("{}: {problem}", case.name);
                kept = false;
            }
        }
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        cases: Vec::new(),
        seeds: 10,
        first: 1001,
        threads: 2,
        figures: Vec::new(),
        trace: false,
        json: false,
    };
    let (mut policy, mut initial) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        let whole = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a whole number"));
        match name.as_str() {
            "--case" => options.cases.extend(find(&value()?)?),
            "--seeds" => options.seeds = whole(value()?)?.max(1),
            "--first" => options.first = whole(value()?)?,
            "--threads" => options.threads = whole(value()?)?.clamp(1, 64) as usize,
            "--policy" => policy = Some(value()?),
            "--initial" => initial = Some(whole(value()?)? as f64),
            "--figures" => options.figures = value()?.split(',').map(str::to_owned).collect(),
            "--trace" => options.trace = true,
            "--json" => options.json = true,
            "--list" => {
                for case in case::all() {
                    println!("{:<22}{}", case.name, case.title);
                }
                std::process::exit(0);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if options.cases.is_empty() {
        options.cases = find("w02")?;
    }
    for case in &mut options.cases {
        if let Some(policy) = &policy {
            case.gateway.policy.clone_from(policy);
        }
        case.gateway.initial = initial.or(case.gateway.initial);
    }
    Ok(options)
}

fn find(name: &str) -> Result<Vec<Case>, String> {
    if name == "all" {
        return Ok(case::all());
    }
    if let Some(case) = case::named(name) {
        return Ok(vec![case]);
    }
    let text = std::fs::read_to_string(name).map_err(|error| format!("no case {name}, and no such file: {error}"))?;
    Case::parse(&text).map(|case| vec![case])
}

/// One report a seed, in the order of the seeds.
fn many(case: &Case, options: &Options) -> Result<Vec<Report>, String> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Report, String>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn as u64 >= options.seeds {
                        return;
                    }
                    let report = run(case, options.first + turn as u64);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((turn, report));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(turn, _)| *turn);
    done.into_iter().map(|(_, report)| report).collect()
}

/// Prints; answers whether every run has kept the rules.
fn show(case: &Case, mut reports: Vec<Report>, options: &Options) -> bool {
    let mut kept = true;
    for report in &reports {
        for broken in report.broken() {
            eprintln!("{} seed {}: {broken}", report.case, report.seed);
            kept = false;
        }
    }
    if let (true, Some(report)) = (options.trace, reports.first()) {
        for sample in report.samples.iter().step_by(5) {
            println!(
                "{:>7.1} limit {:>4} of {:>4} at target {:>4} workers {:>3} held {:>6} stored {:>6}",
                sample.at, sample.limit, sample.limits, sample.at_target, sample.workers, sample.held, sample.stored
            );
        }
    }
    if !options.figures.is_empty() {
        for report in &mut reports {
            report
                .figures
                .retain(|figure| options.figures.iter().any(|name| name == figure.name));
        }
    }
    if options.json {
        for report in &reports {
            println!("{}", report.json());
        }
    } else {
        println!("{}", table(case, &reports));
    }
    kept
}
