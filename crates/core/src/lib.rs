#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
mod connector;
mod deliver;
mod dispatch;
mod effect;
mod egress;
mod error;
mod execution;
mod id;
mod integration;
mod memory;
mod page;
mod platform;
mod ports;
mod publish;
mod replay;
pub mod retry;
mod runner;
mod scope;
mod secret;
mod stop;
mod store;
mod time;
pub mod wire;

pub use call::{Delivery, FromService, Handler, IdempotencyKey, IntoService, Invocation, Meta, Reply};
pub use connector::{
    Action, AuthScheme, BaseUrl, CallOptions, Choice, ChoicePage, ChoiceQuery, ConnectionClient, Connector,
    ConnectorDescriptor, Data, DataSource, DynAction, RetryAt, Transport, check_status,
};
pub use deliver::{Deliver, Delivered};
pub use dispatch::{
    CallState, CallStatus, Cancel, Capabilities, CloseReason, CustomerTerms, Dedupe, DispatchAdmin, DispatchStore,
    Durability, Enqueue, Enqueued, Envelope, Extended, Failure, LaneStats, Lease, LeaseRef, LeaseRequest, LeaseTerms,
    MaxInFlight, Origin, Queue, Rate, Settle, Settled, Start, TargetStats,
};
pub use effect::EffectKeys;
pub use egress::{EgressPolicy, HostRule, Reach, Resolve, is_public, reach, refused_address};
pub use error::{BoxError, Code, Error, ErrorExt, Kind, Problem, ProblemDetails, Result, Retry, Verdict};
pub use execution::{
    Audience, Begun, BusinessLog, Checkpointed, Execution, ExecutionFilter, ExecutionStatus, Executions, Finish,
    Finished, FlowRef, FlowState, Level, LogEntry, Outcome, Progress, StateSnapshot, Timings, TriggerKind,
};
pub use id::{ConnectionId, CustomerId, Fence, InstallationId, InvocationId, RunKey, TargetId, WorkerId};
pub use integration::{
    ActionCall, AnyIntegration, CheckConfig, Config, ConnectionSlot, DynFlow, Egress, Event, Flow, FlowContext,
    FlowDefinition, FlowOptions, Integration, Journal, Migrate, Missed, NoConfig, Overlap, Poll, Polled, Protocol,
    Registry, ScheduleSpec, Script, ScriptSource, Source, Supply, Tick, Ticks, Trigger,
};
pub use memory::Memory;
pub use page::{Page, Paged};
pub use platform::{
    Connection, Connections, Customer, Customers, DataKey, DataKeys, Fire, Health, Installation, InstallationState,
    Installations, SaveInstallation, Saved, Schedule, Schedules,
};
pub use ports::{
    Authenticate, Authorizer, Choices, ConnectRequest, ConnectionTest, Control, Credentials, Permission, Principal,
    Submit, Submitted, Timetable,
};
pub use publish::{
    ContentDigest, Incoming, Operator, OperatorPermission, Operators, Publish, PublishOptions, Published, Release,
    Schemas,
};
pub use replay::{ReplayConfig, ReplayOptions, ReplayState};
pub use retry::{Jitter, RetryBudget, RetryPolicy};
pub use runner::{
    Checkpoint, FollowUp, Isolation, IsolationReport, Limits, MetricKind, RunEnd, RunHandle, RunMode, RunOutcome,
    RunSpec, Runner, Usage, Watch, Work,
};
pub use scope::{CustomerScope, FleetScope, Scope};
pub use secret::{
    CredentialFields, ExposeSecret, KeyWrap, SealContext, Sealed, SecretBox, SecretBytes, SecretRef, SecretString,
    Vault,
};
pub use stop::{StopReason, StopSignal, StopSource};
pub use store::Store;
pub use time::{Clock, SystemClock, Timestamp};
