//! The brain in a loop with a small model of a service: what it learns, and what it leaves alone.

use super::*;
use crate::{Knee, gate::ClassReading};

/// `capacity` calls at once, the others wait inside; calls of class 0 take `quick` seconds, those of class 1 `slow`.
#[derive(Clone, Copy)]
struct Service {
    capacity: f64,
    quick: f64,
    slow: f64,
    /// Everything takes so much longer, for a reason of the service's own.
    factor: f64,
}

const SCAN: Service = Service {
    capacity: 16.0,
    quick: 0.05,
    slow: 0.5,
    factor: 1.0,
};

struct Bench {
    brain: Brain,
    now: Duration,
    diverted: u64,
    arrived: u64,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self {
            brain: Brain::new(Arc::new(policy), 1),
            now: Duration::ZERO,
            diverted: 0,
            arrived: 0,
        }
    }

    fn learnt() -> Self {
        Self::new(Policy::default())
    }

    /// `seconds` of `rate` calls a second, `slow` of them (a share) of class 1, in ticks of `tick` seconds.
    fn run(&mut self, seconds: f64, rate: f64, slow: f64, service: Service, tick: f64) -> Orders {
        let mut orders = None;
        for _ in 0..(seconds / tick).round() as u32 {
            orders = Some(self.tick(rate, slow, service, tick));
        }
        orders.unwrap()
    }

    fn tick(&mut self, rate: f64, slow: f64, service: Service, tick: f64) -> Orders {
        let permits = self.brain.permits().floor();
        let mean = ((1.0 - slow) * service.quick + slow * service.slow) * service.factor;
        let wanted = rate * mean;
        let over = wanted.max(1e-9) > service.capacity || wanted > permits;
        let in_flight = if wanted > service.capacity {
            permits
        } else {
            wanted.min(permits)
        };
        let stretch = (in_flight / service.capacity).max(1.0);
        let throughput = (in_flight / (mean * stretch)).min(rate);
        let count = (throughput * tick).round() as u64;
        let class = |id: u8, share: f64, latency: f64| {
            let count = (count as f64 * share).round() as u64;
            let latency = latency * service.factor * stretch;
            // A spread as of real calls.
            let buckets = [0.6, 0.8, 1.0, 1.2, 1.4].map(|x| (x * latency, count as u32 / 5 + 1));
            ClassReading {
                class: RouteClass::at(id),
                buckets: buckets.to_vec(),
                count,
                sum: latency * count as f64,
            }
        };
        let arrived = (rate * tick).round() as u64;
        let seen = Readings {
            classes: vec![class(0, 1.0 - slow, service.quick), class(1, slow, service.slow)]
                .into_iter()
                .filter(|class| class.count > 0)
                .collect(),
            succeeded: count,
            arrived,
            diverted: arrived.saturating_sub(count),
            saturated: over && in_flight >= permits,
            in_flight: in_flight.round() as u32,
            ..Readings::default()
        };
        self.diverted += seen.diverted;
        self.arrived += arrived;
        self.now += Duration::from_secs_f64(tick);
        let around = Around {
            now: self.now,
            elapsed: Duration::from_secs_f64(tick),
            backlog: 0,
            submitted: 0,
        };
        self.brain.tick(&seen, &[], around)
    }

    fn limit(&self) -> f64 {
        self.brain.limit
    }
}

#[test]
fn a_spike_is_answered_with_a_limit_a_little_above_the_capacity() {
    for tick in [0.05, 0.1, 0.3] {
        let mut bench = Bench::learnt();
        bench.run(20.0, 100.0, 0.0, SCAN, tick);
        assert!(
            (27.0..=29.0).contains(&bench.limit()),
            "nothing to learn yet: {}",
            bench.limit()
        );
        bench.run(20.0, 3200.0, 0.0, SCAN, tick);
        assert!((16.0..26.0).contains(&bench.limit()), "{tick}: {}", bench.limit());
    }
}

#[test]
fn capacity_that_is_added_is_found() {
    let mut bench = Bench::learnt();
    bench.run(20.0, 100.0, 0.0, SCAN, 0.1);
    let grown = Service { capacity: 80.0, ..SCAN };
    bench.run(20.0, 3200.0, 0.0, grown, 0.1);
    assert!((80.0..120.0).contains(&bench.limit()), "{}", bench.limit());
}

#[test]
fn slowness_of_its_own_does_not_cost_throughput() {
    let mut bench = Bench::learnt();
    bench.run(20.0, 300.0, 0.0, SCAN, 0.1);
    let slower = Service { factor: 2.5, ..SCAN };
    bench.run(60.0, 3000.0, 0.0, slower, 0.1);
    assert!(bench.limit() > 14.0, "{}", bench.limit());
}

#[test]
fn a_shift_of_the_mix_is_no_overload() {
    let mut bench = Bench::learnt();
    bench.run(20.0, 100.0, 0.02, SCAN, 0.1);
    let before = bench.limit();
    // Mean service time from 59 to 158 ms: 15.8 calls in flight.
    bench.run(30.0, 100.0, 0.24, SCAN, 0.1);
    assert!(bench.limit() >= before, "{} after {before}", bench.limit());
    assert!(
        (bench.diverted as f64) < 0.01 * bench.arrived as f64,
        "{} of {}",
        bench.diverted,
        bench.arrived
    );
}

#[test]
fn service_time_and_demand_follow_the_mix() {
    let mut bench = Bench::learnt();
    let quick = bench.run(20.0, 100.0, 0.0, SCAN, 0.1);
    assert!((quick.service - 0.05).abs() < 0.005, "{}", quick.service);
    assert!((quick.demand - 5.0).abs() < 0.6, "{}", quick.demand);
    let mixed = bench.run(40.0, 100.0, 0.2, SCAN, 0.1);
    assert!((mixed.service - 0.14).abs() < 0.02, "{}", mixed.service);
    let spike = bench.run(20.0, 1000.0, 0.2, SCAN, 0.1);
    assert!(
        spike.demand > 100.0,
        "demand is what arrives and not what is let in: {}",
        spike.demand
    );
}

#[test]
fn permits_are_kept_for_what_arrives_in_the_meantime() {
    let mut bench = Bench::new(Policy::default().limit(Limit::Fixed(40)));
    let orders = bench.run(20.0, 200.0, 0.0, SCAN, 0.1);
    // 5.3 / ln(40 / 10)
    assert_eq!(orders.reserve, 4);
    let orders = bench.run(20.0, 900.0, 0.0, SCAN, 0.1);
    assert_eq!(orders.reserve, 0, "all permits are needed anyway");
    let mut one = Bench::new(Policy::default().limit(Limit::Fixed(1)));
    assert_eq!(
        one.run(20.0, 1.0, 0.0, SCAN, 0.1).reserve,
        0,
        "the sideline would starve"
    );
}

#[test]
fn an_overload_from_the_first_call_on_is_found_out() {
    let mut bench = Bench::learnt();
    let small = Service { capacity: 6.0, ..SCAN };
    bench.run(40.0, 3000.0, 0.0, small, 0.1);
    assert!(bench.limit() < 10.0, "{}", bench.limit());
    let service = bench.brain.baselines.service();
    assert!(service < 0.07, "{service}");
}

#[test]
fn what_was_learnt_is_where_the_next_process_starts() {
    let mut first = Bench::learnt();
    assert_eq!(first.brain.note(&[]), None, "nothing is known");
    first.run(20.0, 100.0, 0.0, SCAN, 0.1);
    first.run(20.0, 3000.0, 0.0, SCAN, 0.1);
    let names = [Arc::from("/v1/scan"), Arc::from("/v1/report")];
    let note = first.brain.note(&names).unwrap();
    let mut second = Bench::learnt();
    second
        .brain
        .recall(&note, |name| RouteClass::at(u8::from(name != "/v1/scan")));
    assert!((second.limit() - first.limit()).abs() < 1e-9);
    second.run(20.0, 3000.0, 0.0, SCAN, 0.1);
    assert!(
        (second.limit() - first.limit()).abs() < 3.0,
        "{} {}",
        second.limit(),
        first.limit()
    );
    let mut fixed = Bench::new(Policy::default().limit(Limit::Fixed(7)));
    fixed.brain.recall(&note, |_| RouteClass::at(0));
    assert!((fixed.limit() - 7.0).abs() < f64::EPSILON, "what is set is set");
}

#[test]
fn a_bound_holds_whatever_the_algorithm_says() {
    let wild = Limit::custom(10, || Box::new(Wild));
    let mut bench = Bench::new(Policy::default().limit(wild));
    for _ in 0..100 {
        bench.tick(3000.0, 0.0, SCAN, 0.1);
        assert!(bench.limit().is_finite() && bench.limit() >= 1.0, "{}", bench.limit());
    }
    let bounded = Limit::Knee(Knee::default().initial(5).floor(4).ceiling(9));
    let mut bench = Bench::new(Policy::default().limit(bounded));
    bench.run(30.0, 3000.0, 0.0, SCAN, 0.1);
    assert!((4.0..=9.0).contains(&bench.limit()), "{}", bench.limit());
}

#[derive(Debug)]
struct Wild;

impl LimitAlgorithm for Wild {
    fn update(&mut self, window: &Window) -> f64 {
        match window.limit {
            low if low < 2.0 => f64::NAN,
            mid if mid < 100.0 => 1e30,
            _ => -5.0,
        }
    }
}
