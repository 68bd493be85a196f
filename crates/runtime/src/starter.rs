//! Makes the envelopes that start flows.

use crate::Trust;
use bytes::Bytes;
use crosspoint_core::{
    AnyIntegration, Clock, Code, Envelope, Error, ErrorExt, FlowDefinition, FlowRef, FollowUp, Installation,
    InstallationState, Invocation, InvocationId, MaxInFlight, Meta, Overlap, Rate, Registry, Result, RunKey, Schedule,
    Source, TargetId, Tick, Timestamp, TriggerKind, Work,
};
use serde_json::Value;
use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

/// Leases that may be lost, on top of the attempts that the flow's own retry policy allows. Work that keeps losing its
/// worker is closed when they are used up.
const LOST_LEASES: u32 = 3;

/// The target to which this kind of work is dispatched: `flows` or `scripts`.
///
/// ```
/// use crosspoint_core::{Script, Work};
/// let script = Work::Script(std::sync::Arc::new(Script::inline("sh", "true")));
/// assert_eq!(crosspoint_runtime::target_of(&script).as_str(), "scripts");
/// ```
#[must_use]
#[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "both names are valid ids")]
pub fn target_of(work: &Work) -> TargetId {
    let name = match work {
        Work::Script(_) => "scripts",
        _ => "flows",
    };
    TargetId::new(name).expect("a target id")
}

/// The target of work that runs on workers with a label: `scripts.clients`.
///
/// ```
/// use crosspoint_runtime::labelled;
/// let target = labelled("scripts".parse()?, Some("clients"))?;
/// assert_eq!(target.as_str(), "scripts.clients");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
///
/// # Errors
/// [`Code::SetupInvalid`] if the label is not 1 to 32 lower case letters, digits and hyphens.
pub fn labelled(target: TargetId, label: Option<&str>) -> Result<TargetId> {
    let Some(label) = label else { return Ok(target) };
    let sound = label
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if label.is_empty() || label.len() > 32 || !sound {
        let message = "a label of workers is 1 to 32 lower case letters, digits and hyphens";
        return Err(Error::new(Code::SetupInvalid, message).with("label", label));
    }
    TargetId::new(format!("{}.{label}", target.as_str()))
}

/// Makes the envelopes that start flows: the one place that decides their ids, targets, order and attempts.
///
/// Ids are derived from what starts the flow wherever that has an identity (an event's id, a tick), so that the same
/// start is stored once however often it is made. Executions of a flow with state share an ordering key and run one after
/// another.
#[derive(Debug, Clone)]
pub struct Starter {
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    capacity: Capacity,
    trust: Trust,
}

/// How many executions run at once, over all processes on the store. Further ones wait, and nobody else for them.
///
/// ```
/// use crosspoint_runtime::Capacity;
/// let capacity = Capacity::default().per_customer(20).per_installation(5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capacity {
    /// Of all installations of one customer; no maximum unless set.
    pub per_customer: Option<NonZeroU32>,
    /// Of one installation; no maximum unless set. One flow of it can have its own:
    /// [`FlowOptions::max_in_flight`](crosspoint_core::FlowOptions::max_in_flight).
    pub per_installation: Option<NonZeroU32>,
}

impl Capacity {
    /// Sets the maximum of one customer; zero counts as one.
    #[must_use]
    pub fn per_customer(mut self, max: u32) -> Self {
        self.per_customer = Some(NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN));
        self
    }

    /// Sets the maximum of one installation; zero counts as one.
    #[must_use]
    pub fn per_installation(mut self, max: u32) -> Self {
        self.per_installation = Some(NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN));
        self
    }
}

/// One start.
#[derive(Clone, Copy)]
struct Begin<'a> {
    id: InvocationId,
    installation: &'a Installation,
    trigger: TriggerKind,
    input: &'a Value,
}

impl Starter {
    /// A starter of the flows in this registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>, clock: Arc<dyn Clock>) -> Self {
        Self {
            registry,
            clock,
            capacity: Capacity::default(),
            trust: Trust::default(),
        }
    }

    /// With this rule of trust, which says on which workers code runs.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// With these maxima. Every process that starts flows should have the same.
    #[must_use]
    pub const fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// One envelope for every flow of an active installation that reacts to the event. Installations whose version is not
    /// registered here are left out, with a warning in the trace: nobody here knows which flows they have.
    ///
    /// # Errors
    /// [`Code::Internal`] if the event does not serialise.
    pub fn for_event(
        &self,
        installations: &[Installation],
        id: &str,
        name: &str,
        value: &Value,
    ) -> Result<Vec<Envelope>> {
        let mut envelopes = Vec::new();
        for installation in installations.iter().filter(|i| i.state == InstallationState::Active) {
            let Some(integration) = self
                .registry
                .integration(&installation.integration, &installation.version)
            else {
                tracing::warn!(
                    installation = %installation.id,
                    integration = installation.integration,
                    version = installation.version,
                    event = name,
                    "an event passes by an installation whose version is not registered here"
                );
                continue;
            };
            let listening = integration
                .flows
                .iter()
                .filter(|flow| matches!(&flow.source, Source::Event(n) if n == name));
            for flow in listening {
                let parts = ["event", id, name, &installation.id.to_string(), &flow.name];
                let begin = Begin {
                    id: InvocationId::derive(&parts),
                    installation,
                    trigger: TriggerKind::Event,
                    input: value,
                };
                envelopes.push(self.envelope(begin, &integration, flow)?);
            }
        }
        Ok(envelopes)
    }

    /// The envelope of a tick; delayed by the schedule's jitter, which is always the same for one installation's flow.
    ///
    /// # Errors
    /// [`Code::VersionMissing`], or [`Code::NotFound`] if the version has no such flow.
    pub fn for_tick(&self, installation: &Installation, schedule: &Schedule, scheduled: Timestamp) -> Result<Envelope> {
        let integration = self.version(installation)?;
        let flow = flow_of(&integration, &schedule.flow)?;
        let owner = installation.id.to_string();
        let input = tick(scheduled)?;
        let begin = Begin {
            id: InvocationId::derive(&["tick", &owner, &flow.name, &scheduled.to_string()]),
            installation,
            trigger: TriggerKind::Schedule,
            input: &input,
        };
        let mut envelope = self.envelope(begin, &integration, flow)?;
        let key = &mut envelope.invocation.meta.ordering_key;
        if matches!(schedule.spec.overlap, Overlap::Queue { .. }) && key.is_none() {
            *key = Some(format!("schedule:{owner}:{}", flow.name).into());
        }
        if schedule.spec.jitter_ms > 0 {
            let stable = InvocationId::derive(&["jitter", &owner, &flow.name]);
            let delay = stable.as_uuid().as_u64_pair().1 % schedule.spec.jitter_ms;
            envelope.not_before = Some(scheduled.plus(Duration::from_millis(delay)));
        }
        Ok(envelope)
    }

    /// The envelope of a call. A flow that runs on a schedule gets the present moment as its tick unless the caller sends
    /// one.
    ///
    /// # Errors
    /// [`Code::VersionMissing`], or [`Code::NotFound`] if the version has no such flow.
    pub fn for_call(&self, installation: &Installation, flow: &str, input: &Value) -> Result<Envelope> {
        let integration = self.version(installation)?;
        let flow = flow_of(&integration, flow)?;
        let now = match flow.source {
            Source::Schedule(_) if input.is_null() => Some(tick(self.clock.now())?),
            _ => None,
        };
        let begin = Begin {
            id: InvocationId::mint(&*self.clock),
            installation,
            trigger: TriggerKind::Call,
            input: now.as_ref().unwrap_or(input),
        };
        self.envelope(begin, &integration, flow)
    }

    /// The envelopes of the flows that an execution asked to start.
    pub(crate) fn follow_ups(
        &self,
        of: InvocationId,
        installation: &Installation,
        wanted: &[FollowUp],
    ) -> Result<Vec<Envelope>> {
        let mut envelopes = Vec::with_capacity(wanted.len());
        for (n, follow_up) in wanted.iter().enumerate() {
            let integration = self.version(installation)?;
            let flow = flow_of(&integration, &follow_up.flow)?;
            let id = match &follow_up.key {
                Some(key) => InvocationId::derive(&["once", &installation.id.to_string(), &follow_up.flow, key]),
                None => InvocationId::derive(&["follow-up", &of.to_string(), &n.to_string()]),
            };
            let begin = Begin {
                id,
                installation,
                trigger: TriggerKind::FollowUp,
                input: &follow_up.input,
            };
            envelopes.push(self.envelope(begin, &integration, flow)?);
        }
        Ok(envelopes)
    }

    /// Exactly the version that is installed, if it is here.
    fn version(&self, installation: &Installation) -> Result<Arc<AnyIntegration>> {
        self.registry
            .integration(&installation.integration, &installation.version)
            .ok_or_else(|| version_missing(installation))
    }

    /// Exactly the version that is installed, looked for where it may have been published a moment ago.
    pub(crate) async fn find(&self, installation: &Installation) -> Result<Arc<AnyIntegration>> {
        self.registry
            .find(&installation.integration, &installation.version)
            .await
            .ok_or_else(|| version_missing(installation))
    }

    /// Looks for the versions of active installations that are not here.
    pub(crate) async fn find_all(&self, installations: &[Installation]) {
        let active = installations.iter().filter(|i| i.state == InstallationState::Active);
        let versions: BTreeSet<_> = active.map(|i| (&i.integration, &i.version)).collect();
        for (name, version) in versions {
            self.registry.find(name, version).await;
        }
    }

    /// What the new execution is counted in.
    fn bounds(&self, installation: &Installation, flow: &FlowDefinition) -> Vec<MaxInFlight> {
        let id = installation.id;
        let flow = flow
            .options
            .max_in_flight
            .map(|max| (format!("flow:{id}:{}", flow.name), max));
        let installations = self
            .capacity
            .per_installation
            .map(|max| (format!("installation:{id}"), max));
        let customers = self
            .capacity
            .per_customer
            .map(|max| (format!("customer:{}", installation.customer), max));
        let all = [flow, installations, customers].into_iter().flatten();
        all.map(|(key, max)| MaxInFlight::new(key, max.get())).collect()
    }

    fn envelope(&self, begin: Begin<'_>, integration: &AnyIntegration, flow: &FlowDefinition) -> Result<Envelope> {
        let installation = begin.installation;
        let class = self.trust.class(integration, &installation.customer, &flow.work);
        let target = labelled(target_of(&flow.work), class.worker())?;
        let mut meta = Meta::new(begin.id, installation.customer.clone(), target);
        let pointer = flow.options.ordered_by.as_deref();
        if flow.stateful {
            meta.ordering_key = Some(format!("state:{}:{}", installation.id, flow.name).into());
        } else if let Some(value) = pointer.and_then(|pointer| begin.input.pointer(pointer)) {
            // The value may be long: keys of one order need only be the same.
            let order = RunKey::derive(&[&installation.id.to_string(), &flow.name, &value.to_string()]);
            meta.ordering_key = Some(format!("order:{order}").into());
        }
        let request = http::Request::builder()
            .method(http::Method::POST)
            .uri(format!("/flows/{}/{}", integration.name, flow.name))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(begin.input.to_string()))
            .or_fail(Code::Internal, "the request of a flow is not valid")?;
        let reference = FlowRef::new(
            installation.id,
            &integration.name,
            &integration.version,
            &flow.name,
            begin.trigger,
        );
        let mut envelope = Envelope::flow(Invocation::new(meta, request), reference, self.clock.now());
        envelope.bounds = self.bounds(installation, flow);
        envelope.rate = flow.options.rate.map(|(count, time)| {
            let key = format!("flow:{}:{}", installation.id, flow.name);
            Rate::new(key, count.get(), time)
        });
        envelope.max_attempts = flow.options.retry.max_attempts.max(1).saturating_add(LOST_LEASES);
        Ok(envelope)
    }
}

fn tick(scheduled: Timestamp) -> Result<Value> {
    serde_json::to_value(Tick::new(scheduled)).or_fail(Code::Internal, "a tick does not serialise")
}

/// The flow of this name in an installed version.
pub(crate) fn flow_of<'i>(integration: &'i AnyIntegration, flow: &str) -> Result<&'i FlowDefinition> {
    integration.flow(flow).ok_or_else(|| {
        Error::new(Code::NotFound, "the installed version has no such flow")
            .with("integration", &integration.name)
            .with("version", &integration.version)
            .with("flow", flow)
    })
}

pub(crate) fn version_missing(installation: &Installation) -> Error {
    Error::new(
        Code::VersionMissing,
        "this process does not have the installed version of the integration",
    )
    .with("integration", &installation.integration)
    .with("version", &installation.version)
}
