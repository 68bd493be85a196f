//! What goes wrong, and when.

use serde::Deserialize;

/// Something that goes wrong. Replicas are counted from 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Every call takes longer and longer.
    SlowDeath {
        /// When it begins.
        from: f64,
        /// When all is as before, at once.
        until: f64,
        /// How much is added for each second, as a share of the ordinary time.
        per_second: f64,
    },
    /// The whole target is away, comes back cold, and is away again.
    Flapping {
        /// When it is away for the first time.
        from: f64,
        /// When it stays.
        until: f64,
        /// For how long it is away.
        down: f64,
        /// For how long it is there.
        up: f64,
    },
    /// The whole target is away.
    TargetDown {
        /// From when.
        from: f64,
        /// Until when.
        until: f64,
    },
    /// A replica answers everything with an error.
    ReplicaErrors {
        /// Which.
        replica: usize,
        /// From when.
        from: f64,
        /// Until when.
        until: f64,
    },
    /// A replica answers nothing; its connections are lost after 30 s, or when this ends.
    ReplicaHangs {
        /// Which.
        replica: usize,
        /// From when.
        from: f64,
        /// Until when.
        until: f64,
    },
    /// Every replica stands still now and then.
    Pauses {
        /// When the first one pauses.
        from: f64,
        /// How often each pauses.
        every: f64,
        /// For how long.
        length: f64,
        /// All at the same time instead of one after the other.
        #[serde(default)]
        together: bool,
    },
    /// The store fails all that it is asked.
    StoreDown {
        /// From when.
        from: f64,
        /// Until when.
        until: f64,
    },
    /// All gateways die with every task and connection; others start on the same store.
    KillGateways {
        /// When.
        at: f64,
        /// How long nobody listens.
        away: f64,
    },
    /// One gateway after the other is drained and replaced.
    DeployGateways {
        /// When the first goes.
        from: f64,
        /// How long after it the next goes.
        every: f64,
        /// How long each may take to finish.
        grace: f64,
    },
    /// One replica after the other is replaced by a cold one.
    DeployReplicas {
        /// When the first goes.
        from: f64,
        /// How long after it the next goes.
        every: f64,
    },
}

/// The faults of a case, to be asked at any time.
#[derive(Debug, Clone)]
pub struct Plan(Vec<Fault>);

/// How a replica stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Health {
    Well,
    Errors,
    /// Until this second.
    Hangs(f64),
}

impl Plan {
    /// The plan of these faults.
    #[must_use]
    pub fn new(faults: &[Fault]) -> Self {
        Self(faults.to_vec())
    }

    /// All of them.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }

    /// Whether nobody answers.
    #[must_use]
    pub fn is_down(&self, t: f64) -> bool {
        self.0.iter().any(|fault| match *fault {
            Fault::Flapping { from, until, down, up } => (from..until).contains(&t) && (t - from) % (down + up) < down,
            Fault::TargetDown { from, until } => (from..until).contains(&t),
            _ => false,
        })
    }

    /// How often the target comes back.
    #[must_use]
    pub fn recoveries(&self) -> usize {
        let times = |fault: &Fault| match *fault {
            Fault::Flapping { from, until, down, up } => ((until - from) / (down + up)).round() as usize,
            Fault::TargetDown { .. } => 1,
            _ => 0,
        };
        self.0.iter().map(times).sum()
    }

    /// Whether the target has just come back and is cold, when it is cold for `cold` seconds.
    #[must_use]
    pub fn is_cold(&self, t: f64, cold: f64) -> bool {
        self.0.iter().any(|fault| match *fault {
            Fault::Flapping { from, until, down, up } => {
                let phase = (t - from) % (down + up);
                // The last time up lasts beyond `until` by nothing: what follows is warm.
                (from..until).contains(&t) && phase >= down && phase < down + cold
            }
            Fault::TargetDown { until, .. } => (until..until + cold).contains(&t),
            _ => false,
        })
    }

    /// How many times longer than usual everything takes.
    #[must_use]
    pub fn slowness(&self, t: f64) -> f64 {
        let factor = |fault: &Fault| match *fault {
            Fault::SlowDeath {
                from,
                until,
                per_second,
            } if (from..until).contains(&t) => 1.0 + per_second * (t - from),
            _ => 1.0,
        };
        self.0.iter().map(factor).product()
    }

    /// How a replica stands.
    pub(crate) fn health(&self, index: usize, t: f64) -> Health {
        for fault in &self.0 {
            match *fault {
                Fault::ReplicaErrors { replica, from, until } if replica == index && (from..until).contains(&t) => {
                    return Health::Errors;
                }
                Fault::ReplicaHangs { replica, from, until } if replica == index && (from..until).contains(&t) => {
                    return Health::Hangs(until);
                }
                _ => {}
            }
        }
        Health::Well
    }

    /// Whether the store is away.
    #[must_use]
    pub fn is_store_down(&self, t: f64) -> bool {
        let down = |fault: &Fault| matches!(*fault, Fault::StoreDown { from, until } if (from..until).contains(&t));
        self.0.iter().any(down)
    }

    /// When gateways are killed and how long nobody listens then, in order.
    #[must_use]
    pub fn kills(&self) -> Vec<(f64, f64)> {
        let kill = |fault: &Fault| match *fault {
            Fault::KillGateways { at, away } => Some((at, away)),
            _ => None,
        };
        let mut kills: Vec<_> = self.0.iter().filter_map(kill).collect();
        kills.sort_by(|a, b| a.0.total_cmp(&b.0));
        kills
    }
}
