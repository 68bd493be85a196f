//! How far code is trusted, by who wrote it and for whom it runs.

use crosspoint_core::{AnyIntegration, CustomerId, Egress, FlowDefinition, Isolation, Limits, RunSpec, Work};
use std::{fmt, sync::Arc};

/// What is asked about.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Subject<'a> {
    /// Who wrote the integration; `None` is the host.
    pub author: Option<&'a str>,
    /// The integration's name.
    pub integration: &'a str,
    /// For whom it runs.
    pub customer: &'a CustomerId,
    /// The code.
    pub work: &'a Work,
}

/// How far one kind of code is trusted: what it gets at least of isolation, and at most of everything else.
///
/// ```
/// use crosspoint_core::{Egress, Isolation};
/// use crosspoint_runtime::TrustClass;
/// let clients = TrustClass::new().isolation(Isolation::Sandboxed).egress(Egress::Broker).label("clients");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustClass {
    isolation: Option<Isolation>,
    egress: Option<Egress>,
    limits: Option<Limits>,
    label: Option<String>,
}

impl TrustClass {
    /// Trusted with whatever the integration asks for, on any worker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// It runs at this isolation or above. Where the machine cannot enforce it, it does not run.
    #[must_use]
    pub const fn isolation(mut self, weakest: Isolation) -> Self {
        self.isolation = Some(weakest);
        self
    }

    /// It reaches no more than this over the network, whatever it asks for. Of hosts it reaches those that both name.
    #[must_use]
    pub fn egress(mut self, most: Egress) -> Self {
        self.egress = Some(most);
        self
    }

    /// It gets no more than this, whatever it asks for.
    #[must_use]
    pub const fn limits(mut self, most: Limits) -> Self {
        self.limits = Some(most);
        self
    }

    /// It runs on workers with this label only: 1 to 32 lower case letters, digits and hyphens. A label also parts
    /// workers of one release from those of the next, so that they can be replaced one after the other.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn worker(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Holds a run to it, with what its flow asks for: limits, way out, level.
    pub(crate) fn hold(&self, spec: &mut RunSpec, flow: &FlowDefinition) {
        let asked = flow.options.limits;
        spec.limits = self.limits.map_or(asked, |most| asked.within(&most));
        spec.egress = self.egress.clone();
        let asked = match &flow.work {
            Work::Script(script) => script.required_isolation(),
            _ => Isolation::Trusted,
        };
        spec.require = self.isolation.map_or(asked, |weakest| weakest.max(asked));
    }
}

type Rule = dyn Fn(&Subject<'_>) -> TrustClass + Send + Sync;

/// The host's rule that gives each piece of code its class. Every process should have the same.
///
/// ```
/// use crosspoint_core::Isolation;
/// use crosspoint_runtime::{Trust, TrustClass};
/// let trust = Trust::by(|code| match code.author {
///     None => TrustClass::new(),
///     Some(_) => TrustClass::new().isolation(Isolation::Sandboxed).label("clients"),
/// });
/// ```
#[derive(Clone)]
pub struct Trust(Arc<Rule>);

impl Trust {
    /// Classes by this rule, which is asked at every start and before every attempt.
    pub fn by(rule: impl Fn(&Subject<'_>) -> TrustClass + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    pub(crate) fn class(&self, integration: &AnyIntegration, customer: &CustomerId, work: &Work) -> TrustClass {
        (self.0)(&Subject {
            author: integration.author.as_deref(),
            integration: &integration.name,
            customer,
            work,
        })
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::by(|_| TrustClass::new())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}
