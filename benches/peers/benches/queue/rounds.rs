//! Rounds: each round runs every contender once, in an order drawn anew, so that the neighbours on the machine disturb all
//! of them alike. What is compared is the ratio within a round.

use crate::cpu::Took;
use criterion::{Criterion, SamplingMode};
use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

/// A contender: prepares what it needs, and answers with the time that counts.
pub struct Contender<'a> {
    pub name: &'a str,
    pub run: Box<dyn FnMut() -> Took + 'a>,
}

pub fn contender<'a, T: Into<Took>>(name: &'a str, mut run: impl FnMut() -> T + 'a) -> Contender<'a> {
    Contender {
        name,
        run: Box::new(move || run().into()),
    }
}

/// The times of all contenders, round by round.
pub struct Times {
    names: Vec<String>,
    times: Vec<Vec<Took>>,
}

/// At most `count` rounds; none is begun once `budget` is used up, but the first one always is.
pub fn rounds(count: usize, budget: Duration, seed: u64, mut contenders: Vec<Contender<'_>>) -> Times {
    let began = Instant::now();
    let names = contenders.iter().map(|contender| contender.name.to_owned()).collect();
    let mut times = vec![Vec::with_capacity(count); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut random = Random(seed);
    for round in 0..count {
        if round > 0 && began.elapsed() > budget {
            break;
        }
        for last in (1..order.len()).rev() {
            let other = usize::try_from(random.next() % (last as u64 + 1)).unwrap();
            order.swap(last, other);
        }
        for &which in &order {
            times[which].push((contenders[which].run)());
        }
    }
    Times { names, times }
}

/// `splitmix64`.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Times {
    /// How many rounds there were.
    pub fn count(&self) -> usize {
        self.times.first().map_or(0, Vec::len)
    }

    fn of(&self, name: &str) -> &[Took] {
        let which = self.names.iter().position(|known| known == name);
        &self.times[which.unwrap_or_else(|| panic!("no contender {name}"))]
    }

    /// Hands the times of the rounds to criterion as its samples, one a sample, so that there is one set of figures and not
    /// two. With fewer rounds than samples they are handed over again. `skip` tells whose times belong elsewhere.
    pub fn report(&self, criterion: &mut Criterion, group: &str, skip: impl Fn(&str) -> bool) {
        let mut group = criterion.benchmark_group(group);
        // One iteration a sample, and nothing to warm up: the contender has run before.
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_nanos(1))
            .measurement_time(Duration::from_nanos(1));
        let pairs = self.names.iter().zip(&self.times);
        for (name, times) in pairs.filter(|(name, _)| !skip(name)) {
            let next = Cell::new(times.len() - 1);
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let one = || {
                        let time = times[next.get()].wall;
                        next.set((next.get() + 1) % times.len());
                        time
                    };
                    (0..iterations).map(|_| one()).sum()
                });
            });
        }
        group.finish();
    }

    /// Calls a second, for the median round.
    pub fn rate(&self, name: &str, calls: usize) -> f64 {
        let rates = self.of(name).iter().map(|took| calls as f64 / took.wall.as_secs_f64());
        Spread::of(rates).median
    }

    /// How the rates of two contenders compare, round by round, over the same number of calls.
    pub fn ratio(&self, ours: &str, theirs: &str) -> Spread {
        let pairs = self.of(ours).iter().zip(self.of(theirs));
        Spread::of(pairs.map(|(ours, theirs)| theirs.wall.as_secs_f64() / ours.wall.as_secs_f64()))
    }

    /// Prints what the writers' threads cost a call, and how that compares with the first contender's, round by round.
    pub fn print_writers(&self, calls: usize) {
        let micros = |took: &Took| Some(took.writer?.as_secs_f64() * 1e6 / calls as f64);
        let first: Vec<Option<f64>> = self.times[0].iter().map(micros).collect();
        for (name, times) in self.names.iter().zip(&self.times) {
            let costs: Vec<f64> = times.iter().filter_map(micros).collect();
            if costs.is_empty() {
                continue;
            }
            let pairs = times.iter().zip(&first);
            let shares: Vec<f64> = pairs
                .filter_map(|(took, first)| Some((*first)? / micros(took)?))
                .collect();
            let (cost, share) = (Spread::of(costs.into_iter()), Spread::of(shares.into_iter()));
            println!(
                "writer's thread of {name:<22} {:>6.2} us a call ({:.2} to {:.2}); {:.2} of {}'s speed ({:.2} to {:.2})",
                cost.median, cost.least, cost.most, share.median, self.names[0], share.least, share.most
            );
        }
    }
}

/// Median and range.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// The value below which this share of all lies.
    pub fn at(values: &mut [f64], share: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * share) as usize]
    }

    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self {
            median: values[values.len() / 2],
            least: values[0],
            most: values[values.len() - 1],
        }
    }
}

/// Lines of the table at the end.
#[derive(Default)]
pub struct Verdicts(Vec<String>);

impl Verdicts {
    /// A ratio beside what it should be at least.
    pub fn add(&mut self, what: &str, rate: f64, ratio: Spread, rounds: usize, aim: f64) {
        let Spread { median, least, most } = ratio;
        let met = if median >= aim { "met" } else { "MISSED" };
        self.0.push(format!(
            "{what:<58} {rounds:>6} {rate:>8.0}/s {median:>8.2} {:>15} {aim:>6.2} {met}",
            format!("{least:.2} to {most:.2}")
        ));
    }

    pub fn print(&self) {
        println!("\nRatios of rates within a round, whose order was drawn anew each time");
        println!(
            "{:<58} {:>6} {:>10} {:>8} {:>15} {:>6}",
            "", "rounds", "median", "ratio", "range", "aim"
        );
        for line in &self.0 {
            println!("{line}");
        }
    }
}
