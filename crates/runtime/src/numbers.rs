//! Numbers that flows report, passed on to the `metrics` facade: the host chooses the exporter. No label names a customer,
//! and there is an end to the label values that code from elsewhere can make.

use crosspoint_core::MetricKind;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// How many flows have series of their own in one process, and how many names each of them has.
const FLOWS: usize = 200;
const NAMES: usize = 50;
/// Bytes of a name.
const LONGEST: usize = 64;
/// The label of everything that is too much, or no fitting name.
const OTHER: &str = "other";

/// Tells the host's exporter what they mean.
pub(crate) fn describe() {
    let added = "What flows report as counters, by integration, flow and name";
    describe_counter!("crosspoint_flow_count_total", Unit::Count, added);
    let last = "What flows report as gauges, the last value of any run, by integration, flow and name";
    describe_gauge!("crosspoint_flow_value", last);
}

/// Whose numbers they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) integration: Arc<str>,
    pub(crate) flow: Arc<str>,
}

/// The names of one flow, each with what of its counter is no whole number yet.
type Names = BTreeMap<String, f64>;

/// What is known of the series of this process.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Mutex<HashMap<Series, Names>>);

impl Numbers {
    /// `crosspoint_flow_count_total` and `crosspoint_flow_value`, by integration, flow and name.
    pub(crate) fn record(&self, series: &Series, name: &str, kind: MetricKind, value: f64) {
        if !value.is_finite() {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let other = || Series {
            integration: OTHER.into(),
            flow: OTHER.into(),
        };
        let series = match known.contains_key(series) || known.len() < FLOWS {
            true => series.clone(),
            false => other(),
        };
        let names = known.entry(series.clone()).or_default();
        let fits = sound(name) && (names.contains_key(name) || names.len() < NAMES);
        let name = if fits { name } else { OTHER };
        let rest = names.entry(name.to_owned()).or_default();
        let (integration, flow) = (series.integration.to_string(), series.flow.to_string());
        let labels = [("integration", integration), ("flow", flow), ("name", name.to_owned())];
        if kind == MetricKind::Gauge {
            gauge!("crosspoint_flow_value", &labels).set(value);
            return;
        }
        // A counter of the facade holds whole numbers and never falls.
        *rest += value.max(0.0);
        let whole = rest.floor();
        *rest -= whole;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and at least 0; beyond the range it is the end of the range"
        )]
        let whole = whole as u64;
        counter!("crosspoint_flow_count_total", &labels).increment(whole);
    }
}

/// Whether a name can stand in a label: no free text, which might be somebody's data.
fn sound(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'/');
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(fits)
}

/// What the tests of numbers record with.
#[cfg(test)]
pub(crate) mod sums {
    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    /// Adds up by name and labels.
    #[derive(Debug, Default, Clone)]
    pub(crate) struct Sums(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Cell(Sums, String);

    impl Cell {
        fn change(&self, f: impl FnOnce(f64) -> f64) {
            let mut sums = self.0.0.lock().unwrap();
            let cell = sums.entry(self.1.clone()).or_default();
            *cell = f(*cell);
        }
    }

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            self.change(|sum| sum + f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
        }
        fn absolute(&self, _: u64) {}
    }

    impl GaugeFn for Cell {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, value: f64) {
            self.change(|_| value);
        }
    }

    impl Sums {
        /// What was recorded so far, by name and values of labels.
        pub(crate) fn take(&self) -> BTreeMap<String, f64> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }

        fn cell(&self, key: &Key) -> Arc<Cell> {
            let labels: Vec<&str> = key.labels().map(metrics::Label::value).collect();
            Arc::new(Cell(self.clone(), format!("{} {}", key.name(), labels.join(" "))))
        }
    }

    impl Recorder for Sums {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell(key))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{sums::Sums, *};

    fn series(flow: &str) -> Series {
        Series {
            integration: "demo".into(),
            flow: flow.into(),
        }
    }

    fn recorded(f: impl FnOnce(&Numbers)) -> BTreeMap<String, f64> {
        let sums = Sums::default();
        metrics::with_local_recorder(&sums, || f(&Numbers::default()));
        sums.take()
    }

    #[test]
    fn counters_add_up_to_whole_numbers_and_gauges_tell_the_last() {
        let sums = recorded(|numbers| {
            for value in [0.5, 0.75, 2.0, -7.0, 0.75, f64::NAN] {
                numbers.record(&series("sync"), "orders", MetricKind::Counter, value);
                numbers.record(&series("sync"), "left", MetricKind::Gauge, value);
            }
        });
        assert_eq!(sums["crosspoint_flow_count_total demo sync orders"], 4.0);
        assert_eq!(sums["crosspoint_flow_value demo sync left"], 0.75);
    }

    #[test]
    fn there_is_an_end_to_names_and_flows() {
        let sums = recorded(|numbers| {
            for n in 0..NAMES + 30 {
                numbers.record(&series("sync"), &format!("n{n}"), MetricKind::Counter, 1.0);
            }
            for name in ["ann@example.com", "", "[secret]", &"x".repeat(LONGEST + 1)] {
                numbers.record(&series("sync"), name, MetricKind::Counter, 1.0);
            }
            for n in 0..FLOWS + 30 {
                numbers.record(&series(&format!("f{n}")), "runs", MetricKind::Counter, 1.0);
            }
        });
        assert_eq!(sums["crosspoint_flow_count_total demo sync other"], 34.0);
        assert_eq!(sums["crosspoint_flow_count_total other other runs"], 31.0);
        assert!(sums.len() <= NAMES + 1 + FLOWS, "{}", sums.len());
        assert!(
            !sums.keys().any(|key| key.contains('@') || key.contains('[')),
            "{sums:?}"
        );
    }
}
