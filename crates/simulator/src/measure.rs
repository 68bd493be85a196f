//! Figures of a run, from what was written down.

use crate::{
    Ledger, Report,
    bound::bound,
    front::Site,
    ledger::{Book, Call, End, Stage, mean_work},
    report::Figure,
};

/// Works every figure of a run out.
pub(crate) fn measure(site: &Site, ledger: &Ledger) -> Report {
    let book = ledger.to_book();
    let case = &*site.case;
    let calls = Calls::new(&book);
    let mut figures = ends(&calls);
    figures.extend(latencies(&calls));
    figures.extend(tries(site, &book));
    figures.extend(customers(site, &calls));
    let mut arrivals: Vec<(f64, f64)> = book
        .calls
        .iter()
        .map(|call| {
            (
                call.intended,
                mean_work(case, call.customer, call.class, call.intended).0,
            )
        })
        .collect();
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bound = 100.0 * bound(&arrivals, &book.capacity, case.gateway.hold);
    let on_connection = calls.share(|end| matches!(end, End::Direct | End::Queued));
    let recoveries = crate::case::Plan::new(&case.faults).recoveries();
    figures.extend([
        ("bound", bound),
        ("share", 100.0 * on_connection / bound.max(1e-9)),
        (
            "base_again",
            again(
                case.disturbance,
                calls.ended.iter().map(|(call, end, at)| {
                    let quick = matches!(end, Some(End::Direct | End::Queued)) && at - call.intended < 1.0;
                    (call.intended, quick)
                }),
            ),
        ),
        ("openings", book.openings as f64),
        (
            "openings_over_recoveries",
            if recoveries == 0 {
                book.openings as f64
            } else {
                book.openings as f64 / recoveries as f64
            },
        ),
        ("changes", book.changes as f64),
        (
            "held_in_vain",
            100.0 * book.in_vain as f64 / (book.tries.len() as f64).max(1.0),
        ),
        ("late", 100.0 * book.late as f64 / (book.tries.len() as f64).max(1.0)),
        ("peak_held", book.peak_held as f64),
        ("peak_stored", site.store.peak() as f64),
        ("stored_twice", site.store.replied_twice() as f64),
        ("unstored_202", book.unstored as f64),
        ("replica_seconds", book.replica_seconds),
        (
            "last_limit",
            book.samples.last().map_or(0.0, |sample| f64::from(sample.limit)),
        ),
    ]);
    let timeline = calls
        .ended
        .iter()
        .map(|(call, end, at)| crate::report::Point {
            at: call.intended,
            after: at - call.intended,
            end: *end,
        })
        .collect();
    Report {
        case: case.name.clone(),
        seed: site.seed,
        figures: figures
            .into_iter()
            .map(|(name, value)| Figure { name, value })
            .collect(),
        samples: book.samples,
        timeline,
    }
}

struct Calls<'a> {
    /// Each call, how it ended and when; `None` if it has not.
    ended: Vec<(&'a Call, Option<End>, f64)>,
}

impl<'a> Calls<'a> {
    fn new(book: &'a Book) -> Self {
        let end = |call: &'a Call| match &call.stage {
            Stage::Ended(end, at) => (call, Some(*end), *at),
            // What was accepted and never answered is lost, as is a call that still hangs.
            Stage::Accepted(_) => (call, Some(End::Lost), f64::NAN),
            Stage::Trying => (call, None, f64::NAN),
        };
        Self {
            ended: book.calls.iter().map(end).collect(),
        }
    }

    fn count(&self, which: impl Fn(End) -> bool) -> usize {
        self.ended.iter().filter(|(_, end, _)| end.is_some_and(&which)).count()
    }

    fn share(&self, which: impl Fn(End) -> bool) -> f64 {
        100.0 * self.count(which) as f64 / (self.ended.len() as f64).max(1.0)
    }
}

type Named = (&'static str, f64);

fn ends(calls: &Calls<'_>) -> Vec<Named> {
    let polled = calls.count(|end| end == End::Polled) as f64;
    let lost = calls.count(|end| end == End::Lost) as f64;
    vec![
        ("calls", calls.ended.len() as f64),
        ("definite", calls.share(|end| end != End::Lost)),
        (
            "answered",
            calls.share(|end| matches!(end, End::Direct | End::Queued | End::Polled)),
        ),
        (
            "on_connection",
            calls.share(|end| matches!(end, End::Direct | End::Queued)),
        ),
        ("queued", calls.share(|end| end == End::Queued)),
        ("polled", calls.share(|end| end == End::Polled)),
        (
            "accepted_answered",
            if polled + lost > 0.0 {
                100.0 * polled / (polled + lost)
            } else {
                100.0
            },
        ),
        ("failed", calls.share(|end| end == End::Failed)),
        ("refused", calls.share(|end| end == End::Refused)),
        ("cut", calls.share(|end| end == End::Cut)),
        ("left", calls.share(|end| end == End::Left)),
        ("lost", lost),
    ]
}

/// The value below which the share `of` lies; NaN for nothing.
fn quantile(sorted: &[f64], of: f64) -> f64 {
    let at = ((sorted.len() as f64 * of) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn latencies(calls: &Calls<'_>) -> Vec<Named> {
    let of = |which: fn(&End) -> bool| {
        let all = calls.ended.iter().filter(|(_, end, _)| end.as_ref().is_some_and(which));
        sorted(all.map(|(call, _, at)| at - call.intended))
    };
    let on = of(|end| matches!(end, End::Direct | End::Queued));
    let all = of(|end| matches!(end, End::Direct | End::Queued | End::Polled));
    vec![
        ("p50", quantile(&on, 0.5)),
        ("p99", quantile(&on, 0.99)),
        ("p999", quantile(&on, 0.999)),
        ("all_p50", quantile(&all, 0.5)),
        ("all_p99", quantile(&all, 0.99)),
    ]
}

fn tries(site: &Site, book: &Book) -> Vec<Named> {
    let case = &*site.case;
    let share = |from: f64| {
        let tries = book.tries.iter().filter(|sent| sent.sent >= from);
        let (all, diverted) = tries.fold((0.0, 0.0), |(all, diverted), sent| {
            (all + 1.0, diverted + f64::from(u8::from(!sent.direct)))
        });
        100.0 * diverted / f64::max(all, 1.0)
    };
    let executions: u32 = book.tries.iter().map(|sent| sent.executions).sum();
    let twice = book.tries.iter().filter(|sent| sent.executions > 1).count();
    vec![
        ("diverted", share(0.0)),
        // The first twenty seconds are for learning, where the disturbance does not begin with the run.
        ("diverted_warm", share(case.disturbance.0)),
        (
            "direct_again",
            again(
                case.disturbance,
                book.tries
                    .iter()
                    .map(|sent| (sent.sent, sent.direct && sent.answered.is_none_or(|after| after < 1.0))),
            ),
        ),
        ("failed_direct", book.failed_direct as f64),
        ("failed_queued", book.failed_queued as f64),
        ("executed_twice", twice as f64),
        ("executions", f64::from(executions) / (book.calls.len() as f64).max(1.0)),
        ("sent", book.tries.len() as f64),
        ("left_tries", book.tries.iter().filter(|sent| sent.left).count() as f64),
    ]
}

/// How many seconds after the disturbance the last second ended in which fewer than 99 % were good (one miss is
/// forgiven); 0 if there was none after it.
fn again(disturbance: (f64, f64), events: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut seconds: Vec<(f64, f64)> = Vec::new();
    for (at, good) in events {
        let index = at.max(0.0) as usize;
        if seconds.len() <= index {
            seconds.resize(index + 1, (0.0, 0.0));
        }
        if let Some(second) = seconds.get_mut(index) {
            second.0 += 1.0;
            second.1 += f64::from(u8::from(good));
        }
    }
    let bad = |(_, (all, good)): &(usize, &(f64, f64))| *good < 0.99 * all - 1.0;
    let last = seconds.iter().enumerate().rev().find(bad);
    last.map_or(0.0, |(second, _)| second as f64 + 1.0 - disturbance.1)
        .max(0.0)
}

fn customers(site: &Site, calls: &Calls<'_>) -> Vec<Named> {
    let case = &*site.case;
    let count = case.load.customers.count;
    if count < 2 {
        return Vec::new();
    }
    let mut shares = vec![(0.0, 0.0); count];
    for (call, end, _) in &calls.ended {
        if let Some(share) = shares.get_mut(call.customer) {
            share.0 += 1.0;
            share.1 += f64::from(u8::from(matches!(end, Some(End::Direct | End::Queued))));
        }
    }
    let served: Vec<f64> = shares.iter().map(|(all, on)| on / f64::max(*all, 1.0)).collect();
    let (sum, squares) = served
        .iter()
        .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    let quiet = |within: &dyn Fn(f64) -> bool| {
        let all = calls
            .ended
            .iter()
            .filter(|(call, _, _)| call.customer != 0 && within(call.intended));
        quantile(&sorted(all.map(|(call, _, at)| at - call.intended)), 0.99)
    };
    let before = quiet(&|at| at > 5.0 && at < case.disturbance.0);
    let during = quiet(&|at| case.disturbed(at));
    vec![
        ("jain", sum * sum / (count as f64 * squares).max(1e-9)),
        ("quiet_p99", during),
        ("quiet_ratio", during / before),
    ]
}
