//! Cases: what is simulated, as data. Times are seconds of the run unless a name says otherwise.

mod bundled;
mod faults;

pub use bundled::{all, named};
pub(crate) use faults::Health;
pub use faults::{Fault, Plan};

use serde::Deserialize;

/// One case: load, replicas, gateway and what goes wrong. Read from JSON; unknown fields are refused.
///
/// ```
/// let case = crosspoint_simulator::case::named("w02").expect("bundled");
/// assert_eq!(case.load.rate_at(30.0), 1600.0);
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The name, as given to `--case`.
    pub name: String,
    /// What happens, in a sentence.
    pub title: String,
    /// For how long calls arrive. What is accepted by then is still waited for.
    pub duration: f64,
    /// From when to when the load or the target is not ordinary; figures "after the disturbance" count from its end.
    pub disturbance: (f64, f64),
    /// Who calls.
    pub load: Load,
    /// What is called.
    #[serde(default)]
    pub pool: Pool,
    /// Whether replicas come and go; without it their number stays.
    #[serde(default)]
    pub autoscaler: Option<Autoscaler>,
    /// How the gateway is set.
    #[serde(default)]
    pub gateway: Gateway,
    /// How the store behaves.
    #[serde(default)]
    pub store: Store,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What is hoped for; printed beside the figures, never asserted.
    #[serde(default)]
    pub goals: Vec<Goal>,
}

/// Who calls, how often, and how patiently. Arrivals are open-loop: a slow answer does not slow the next call down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Calls a second in ordinary times.
    pub rate: f64,
    /// How the rate changes.
    #[serde(default)]
    pub profile: Profile,
    /// Kinds of calls, each a route of its own: at most two.
    #[serde(default = "one_class")]
    pub classes: Vec<Class>,
    /// The share of the second class over time, by steps; empty: there is none of it.
    #[serde(default)]
    pub mix: Vec<Mix>,
    /// The customers.
    #[serde(default)]
    pub customers: Customers,
    /// What a client does when it waits or fails.
    #[serde(default)]
    pub client: Client,
    /// The share of calls that can never succeed: whoever runs one loses the connection.
    #[serde(default)]
    pub poison: f64,
}

/// How the rate changes over time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Profile {
    /// Not at all.
    #[default]
    Constant,
    /// `factor` times as much from `from` to `until`.
    Step {
        /// When it begins.
        from: f64,
        /// When it ends.
        until: f64,
        /// How many times the ordinary rate.
        factor: f64,
    },
    /// Much more for a short time; the same as a step, by the name people use.
    Spike {
        /// When it begins.
        from: f64,
        /// When it ends.
        until: f64,
        /// How many times the ordinary rate.
        factor: f64,
    },
    /// Evenly up to `factor` times the rate, which then stays until `hold` before it falls back at once.
    Ramp {
        /// When it begins to rise.
        from: f64,
        /// When it has risen.
        until: f64,
        /// Until when it stays.
        hold: f64,
        /// How many times the ordinary rate at the top.
        factor: f64,
    },
    /// Up and down like a day, by a sine: `rate * (1 + swing * sin)`, beginning at the lowest point.
    Diurnal {
        /// The length of a day.
        period: f64,
        /// How far it swings, as a share of the rate, below 1.
        swing: f64,
    },
}

/// A kind of calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its mean service time on a replica that has nothing else to do, in seconds.
    pub seconds: f64,
    /// The spread of the service time: the standard deviation of its logarithm.
    #[serde(default = "half")]
    pub sigma: f64,
}

/// A step of the mix of classes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// From when.
    pub from: f64,
    /// The share of the second class.
    pub share: f64,
    /// How far the share swings around that, by a sine.
    #[serde(default)]
    pub swing: f64,
    /// The length of a swing.
    #[serde(default = "one")]
    pub period: f64,
}

/// The customers; calls are spread evenly over them. What is special is always the first one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customers {
    /// How many.
    pub count: usize,
    /// How many times the ordinary rate the first customer calls during the disturbance. The others go on as before.
    #[serde(default = "one")]
    pub noisy: f64,
    /// The mean service time of the first customer's calls during the disturbance, in seconds.
    #[serde(default)]
    pub slow: Option<f64>,
}

impl Default for Customers {
    fn default() -> Self {
        Self {
            count: 1,
            noisy: 1.0,
            slow: None,
        }
    }
}

/// What a client does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// How long it waits for an answer before it goes away; absent: as long as it takes.
    #[serde(default)]
    pub patience: Option<f64>,
    /// How often it tries again after an error, a lost connection or its own leaving.
    #[serde(default)]
    pub retries: u32,
    /// The longest pause before the first retry; it doubles up to 8 s, and what is waited is a random part of it.
    #[serde(default = "fifth")]
    pub backoff: f64,
    /// Retries for each call that all clients together may make (with ten to begin with); absent: no limit.
    #[serde(default)]
    pub budget: Option<f64>,
    /// Moments when clients that wait go away, all at once.
    #[serde(default)]
    pub storms: Vec<f64>,
    /// The share of the waiting clients that go away in a storm.
    #[serde(default)]
    pub storm_share: f64,
    /// After so long it asks for the first time for what was accepted; then twice as late each time, fifteen times this
    /// at most.
    #[serde(default = "two")]
    pub ask: f64,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            patience: None,
            retries: 0,
            backoff: fifth(),
            budget: None,
            storms: Vec::new(),
            storm_share: 0.0,
            ask: two(),
        }
    }
}

/// The replicas that are called. Each has workers and a queue before them, first come first served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How many are there at the start.
    pub replicas: usize,
    /// Workers in each.
    pub workers: u32,
    /// How much each further `workers` calls in a replica slow it down: 0.5 means by half.
    pub contention: f64,
    /// The most times `contention` is counted.
    pub contention_most: f64,
    /// For how long a new replica is cold.
    pub cold: f64,
    /// How many times slower a cold replica is.
    pub cold_factor: f64,
    /// Which replica gets a call.
    pub choice: Choice,
    /// After so many errors in a row a replica is passed over for `eject` seconds, twice as long the second time and
    /// so on; 0: never.
    pub eject_after: u32,
    /// See `eject_after`.
    pub eject: f64,
    /// Whether a replica stops working for a caller that has gone.
    pub notices: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            replicas: 2,
            workers: 8,
            contention: 0.5,
            contention_most: 4.0,
            cold: 2.0,
            cold_factor: 4.0,
            choice: Choice::LeastLoaded,
            eject_after: 5,
            eject: 5.0,
            notices: true,
        }
    }
}

/// Which replica gets a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The one with the fewest calls.
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// The better of two at random.
    TwoChoices,
}

/// Adds and removes replicas by the demand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Autoscaler {
    /// At most so many replicas; at least as many as at the start.
    pub most: usize,
    /// How much of a replica's workers is planned with.
    pub utilisation: f64,
    /// How often one is added at most.
    pub pause: f64,
    /// How long after the decision it is ready.
    pub ready: f64,
    /// How long the demand must be lower before the first is removed; then one every quarter of this.
    pub down: f64,
}

impl Default for Autoscaler {
    fn default() -> Self {
        Self {
            most: 10,
            utilisation: 0.7,
            pause: 2.5,
            ready: 10.0,
            down: 60.0,
        }
    }
}

/// How the gateway is set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// How many gateways share the target and the store.
    pub count: usize,
    /// How long a client is kept waiting.
    pub hold: f64,
    /// How permits are limited: `knee`, `aimd`, `gradient2`, `vegas`, `fixed:N`, or `known` for what the replicas that are
    /// ready can take; or Knee with another rule: `sticky`, `fifo`, `lifo`.
    pub policy: String,
    /// Where a learnt limit starts; absent: the gateway's default.
    pub initial: Option<f64>,
    /// How long a lease lasts.
    pub lease: f64,
    /// Whether calls may be made again when nobody knows how they ended.
    pub repeatable: bool,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            count: 1,
            hold: 10.0,
            policy: "knee".to_owned(),
            initial: None,
            lease: 30.0,
            repeatable: true,
        }
    }
}

/// How the store behaves when it is up.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The median time of each write in milliseconds; 0: none at all.
    pub write_ms: f64,
    /// The spread of the time: the standard deviation of its logarithm.
    pub sigma: f64,
}

/// What is hoped for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The figure, as it is named in the report.
    pub figure: String,
    /// At least so much.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// At most so much.
    #[serde(default)]
    pub at_most: Option<f64>,
}

impl Goal {
    /// Whether a figure reaches it.
    #[must_use]
    pub fn reached(&self, value: f64) -> bool {
        self.at_least.is_none_or(|least| value >= least) && self.at_most.is_none_or(|most| value <= most)
    }
}

impl Load {
    /// The rate of all ordinary calls at a time, without the noisy customer's.
    #[must_use]
    pub fn rate_at(&self, t: f64) -> f64 {
        let factor = match self.profile {
            Profile::Constant => 1.0,
            Profile::Step { from, until, factor } | Profile::Spike { from, until, factor } => {
                if (from..until).contains(&t) { factor } else { 1.0 }
            }
            Profile::Ramp {
                from,
                until,
                hold,
                factor,
            } => {
                if (from..until).contains(&t) {
                    1.0 + (factor - 1.0) * (t - from) / (until - from)
                } else if (until..hold).contains(&t) {
                    factor
                } else {
                    1.0
                }
            }
            Profile::Diurnal { period, swing } => 1.0 - swing * (std::f64::consts::TAU * t / period).cos(),
        };
        self.rate * factor
    }

    /// The share of the second class at a time.
    #[must_use]
    pub fn second_class(&self, t: f64) -> f64 {
        let step = self.mix.iter().rev().find(|step| step.from <= t);
        step.map_or(0.0, |step| {
            step.share + step.swing * (std::f64::consts::TAU * (t - step.from) / step.period).sin()
        })
    }
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let case: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let problem = match () {
            () if case.load.classes.is_empty() || case.load.classes.len() > 2 => "there are one or two classes",
            () if case.load.customers.count == 0 => "there is at least one customer",
            () if case.pool.replicas == 0 || case.pool.workers == 0 => "there is at least one worker",
            () if case.gateway.count == 0 => "there is at least one gateway",
            () if case.load.rate <= 0.0 => "the rate is more than 0",
            () => return Ok(case),
        };
        Err(format!("{}: {problem}", case.name))
    }

    /// Whether a time lies in the disturbance.
    #[must_use]
    pub fn disturbed(&self, t: f64) -> bool {
        (self.disturbance.0..self.disturbance.1).contains(&t)
    }
}

fn one_class() -> Vec<Class> {
    vec![Class {
        seconds: 0.05,
        sigma: half(),
    }]
}

const fn half() -> f64 {
    0.5
}

const fn one() -> f64 {
    1.0
}

const fn fifth() -> f64 {
    0.2
}

const fn two() -> f64 {
    2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused_at_every_depth() {
        let text = r#"{"name":"x","title":"x","duration":1,"disturbance":[0,1],"load":{"rate":1}}"#;
        assert!(Case::parse(text).is_ok());
        for wrong in [
            r#""rate":1,"speed":2"#,
            r#""rate":1,"client":{"mood":"bad"}"#,
            r#""rate":0"#,
        ] {
            assert!(Case::parse(&text.replace(r#""rate":1"#, wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn profiles_are_where_they_say() {
        let ramp = named("w03").unwrap().load;
        assert!((ramp.rate_at(50.0) - 320.0).abs() < 1e-9);
        assert!((ramp.rate_at(100.0) - 480.0).abs() < 1e-9);
        let mix = named("w13").unwrap().load;
        assert!((mix.second_class(30.0) - 0.45).abs() < 1e-9);
        assert!((mix.second_class(75.0) - 0.05).abs() < 1e-9);
    }
}
