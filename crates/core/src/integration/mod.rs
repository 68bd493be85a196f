//! Integrations: the productised definitions that customers install, and the flows in them.

mod context;
mod flow;
mod poll;
mod registry;
mod script;
mod trigger;

pub use context::{ActionCall, FlowContext, Journal};
pub use flow::{DynFlow, Flow, FlowOptions};
pub use poll::{Poll, Polled};
pub use registry::{Registry, Supply};
pub use script::{Egress, Protocol, Script, ScriptSource};
pub use trigger::{Event, Missed, Overlap, ScheduleSpec, Source, Tick, Ticks, Trigger};

use crate::{Code, Data, Error, Problem, Result, Work};
use schemars::{Schema, schema_for};
use serde_json::Value;
use std::{fmt, marker::PhantomData, sync::Arc};

/// What can be an integration's configuration.
pub trait Config: Data + Sync + Clone {}
impl<T: Data + Sync + Clone> Config for T {}

/// The configuration of an integration that needs none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NoConfig {}

/// A connection that an integration needs, by the name its flows use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct ConnectionSlot {
    /// The name that flows use.
    pub name: String,
    /// The connector's id.
    pub connector: String,
}

impl ConnectionSlot {
    /// A slot for a connection of this connector.
    #[must_use]
    pub fn new(name: impl Into<String>, connector: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            connector: connector.into(),
        }
    }
}

/// How the erased configuration of an older version becomes that of this one.
pub type Migrate = Arc<dyn Fn(Value) -> Result<Value> + Send + Sync>;

/// Whether a configuration has the type that the flows expect; answers it as that type writes it, defaults filled in.
pub type CheckConfig = Arc<dyn Fn(&Value) -> Result<Value> + Send + Sync>;

/// A flow as the registry holds it.
#[derive(Clone)]
#[non_exhaustive]
pub struct FlowDefinition {
    /// Its name within the integration.
    pub name: String,
    /// What starts it.
    pub source: Source,
    /// The code.
    pub work: Work,
    /// Whether it remembers something between executions.
    pub stateful: bool,
    /// JSON Schema of the input.
    pub input_schema: Schema,
    /// Retries, time limit.
    pub options: FlowOptions,
}

impl FlowDefinition {
    /// A flow with state, any input, and the usual retries and limits.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Source, work: Work) -> Self {
        Self {
            name: name.into(),
            source,
            work,
            stateful: true,
            input_schema: schema_for!(Value),
            options: FlowOptions::default(),
        }
    }
}

impl fmt::Debug for FlowDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowDefinition")
            .field("name", &self.name)
            .field("source", &self.source)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

/// A productised integration: what it needs, how it is configured, what it does.
///
/// The compiler ties the flows to the configuration and the triggers to the flows' inputs; `config` comes before the
/// first flow.
///
/// ```
/// use crosspoint_core::{Event, Flow, FlowContext, Integration, Result, Trigger};
/// # use serde::{Serialize, Deserialize}; use schemars::JsonSchema;
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
/// struct Settings {
///     /// Orders above this amount are announced
///     minimum: u64,
/// }
///
/// #[derive(Debug, Serialize, Deserialize, JsonSchema)]
/// struct OrderCreated { amount: u64 }
/// impl Event for OrderCreated { const NAME: &'static str = "order.created"; }
///
/// struct Announce;
///
/// #[async_trait::async_trait]
/// impl Flow for Announce {
///     type Config = Settings;
///     type Input = OrderCreated;
///     type Output = bool;
///     async fn run(&self, cx: &FlowContext<Settings>, order: OrderCreated) -> Result<bool> {
///         Ok(order.amount > cx.config().minimum)
///     }
/// }
///
/// let integration = Integration::new("order-alerts", "1.0.0")
///     .title("Order alerts")
///     .config::<Settings>()
///     .flow("announce", Trigger::event::<OrderCreated>(), Announce);
/// ```
#[must_use = "an integration does nothing until it is registered"]
#[derive(Debug, Clone)]
pub struct Integration<C = NoConfig> {
    inner: AnyIntegration,
    config: PhantomData<fn() -> C>,
}

/// An integration as the registry holds it.
#[derive(Clone)]
#[non_exhaustive]
pub struct AnyIntegration {
    /// Its name: lower case, digits and hyphens; never changes.
    pub name: String,
    /// Its version (semver).
    pub version: String,
    /// Who wrote it; `None` is the host itself. Decides how far it is trusted.
    pub author: Option<String>,
    /// Its name for people.
    pub title: String,
    /// One line for the catalogue.
    pub summary: String,
    /// What it does, in paragraphs.
    pub description: String,
    /// Where it stands in the catalogue.
    pub category: String,
    /// What it needs.
    pub connections: Vec<ConnectionSlot>,
    /// JSON Schema of its configuration.
    pub config_schema: Schema,
    /// Whether a configuration has the type that the flows expect, and what it is with all defaults filled in.
    pub check_config: CheckConfig,
    /// What it does.
    pub flows: Vec<FlowDefinition>,
    /// From which versions (a semver requirement) it takes configurations over, and how.
    pub migrations: Vec<(String, Migrate)>,
}

impl fmt::Debug for AnyIntegration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyIntegration")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("connections", &self.connections)
            .field("flows", &self.flows)
            .finish_non_exhaustive()
    }
}

impl AnyIntegration {
    /// The flow with this name.
    #[must_use]
    pub fn flow(&self, name: &str) -> Option<&FlowDefinition> {
        self.flows.iter().find(|flow| flow.name == name)
    }
}

impl Integration {
    /// An integration without configuration; the name never changes, the version is semver.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            inner: AnyIntegration {
                author: None,
                title: name.clone(),
                name,
                version: version.into(),
                summary: String::new(),
                description: String::new(),
                category: String::new(),
                connections: Vec::new(),
                config_schema: schema_for!(NoConfig),
                check_config: Arc::new(check::<NoConfig>),
                flows: Vec::new(),
                migrations: Vec::new(),
            },
            config: PhantomData,
        }
    }

    /// Sets the type of the configuration. It comes before the first flow, because it exists on `Integration<NoConfig>`
    /// alone.
    pub fn config<C: Config>(mut self) -> Integration<C> {
        self.inner.config_schema = schema_for!(C);
        self.inner.check_config = Arc::new(check::<C>);
        Integration {
            inner: self.inner,
            config: PhantomData,
        }
    }
}

fn check<C: Config>(value: &Value) -> Result<Value> {
    match C::deserialize(value) {
        Ok(config) => crate::connector::to_value(&config),
        Err(e) => Err(Error::new(Code::ConfigInvalid, "the configuration has the wrong shape")
            .with_problems(vec![Problem::new("", e.to_string())])),
    }
}

impl<C: Config> Integration<C> {
    /// Says who wrote it, if that is not the host itself: a client, a partner. The host's rule of trust looks at it.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.inner.author = Some(author.into());
        self
    }

    /// Sets the name for people.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.inner.title = title.into();
        self
    }

    /// Sets the line for the catalogue.
    pub fn summary(mut self, summary: impl Into<String>) -> Self {
        self.inner.summary = summary.into();
        self
    }

    /// Sets what it does, in paragraphs.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.inner.description = description.into();
        self
    }

    /// Sets where it stands in the catalogue.
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.inner.category = category.into();
        self
    }

    /// Declares a connection that flows reach as `name`.
    pub fn connection(mut self, name: impl Into<String>, connector: impl Into<String>) -> Self {
        self.inner.connections.push(ConnectionSlot {
            name: name.into(),
            connector: connector.into(),
        });
        self
    }

    /// Adds a flow that is compiled into the host.
    pub fn flow<F: Flow<Config = C>>(self, name: impl Into<String>, trigger: Trigger<F::Input>, flow: F) -> Self {
        self.flow_with(name, trigger, flow, FlowOptions::default())
    }

    /// Adds a flow with retries and limits of its own.
    pub fn flow_with<F: Flow<Config = C>>(
        mut self,
        name: impl Into<String>,
        trigger: Trigger<F::Input>,
        flow: F,
        options: FlowOptions,
    ) -> Self {
        self.inner.flows.push(FlowDefinition {
            name: name.into(),
            source: trigger.into_source(),
            work: Work::Flow(Arc::new(flow)),
            stateful: F::STATEFUL,
            input_schema: schema_for!(F::Input),
            options,
        });
        self
    }

    /// Adds a flow that handles what a [`Poll`] finds. `name` is the flow that handles one item; the one that polls is
    /// called `name` with `-poll` behind it.
    pub fn poll<P, F>(self, name: impl Into<String>, schedule: impl Into<ScheduleSpec>, poll: P, flow: F) -> Self
    where
        P: Poll<Config = C>,
        F: Flow<Config = C, Input = P::Item>,
    {
        let name = name.into();
        self.flow(name.clone(), Trigger::call::<P::Item>(), flow)
            .polled(name, schedule.into(), poll)
    }

    /// Adds a flow that is a program in any language. Scripts always have a state.
    pub fn script<I: Data>(self, name: impl Into<String>, trigger: Trigger<I>, script: Script) -> Self {
        self.script_with(name, trigger, script, FlowOptions::default())
    }

    /// Adds a script with retries and limits of its own.
    pub fn script_with<I: Data>(
        mut self,
        name: impl Into<String>,
        trigger: Trigger<I>,
        script: Script,
        options: FlowOptions,
    ) -> Self {
        self.inner.flows.push(FlowDefinition {
            name: name.into(),
            source: trigger.into_source(),
            work: Work::Script(Arc::new(script)),
            stateful: true,
            input_schema: schema_for!(I),
            options,
        });
        self
    }

    /// Takes over the configurations of older versions (a semver requirement such as `^1`).
    pub fn upgrade_from<Old: Config>(mut self, versions: impl Into<String>) -> Self
    where
        C: TryFrom<Old>,
        <C as TryFrom<Old>>::Error: fmt::Display,
    {
        let migrate: Migrate = Arc::new(|old| {
            let old: Old = crate::connector::from_value(old, "the older configuration")?;
            let new = C::try_from(old).map_err(|e| {
                Error::new(
                    Code::ConfigInvalid,
                    format!("the older configuration does not convert: {e}"),
                )
            })?;
            crate::connector::to_value(&new)
        });
        self.inner.migrations.push((versions.into(), migrate));
        self
    }
}

impl<C> From<Integration<C>> for AnyIntegration {
    fn from(integration: Integration<C>) -> Self {
        integration.inner
    }
}
