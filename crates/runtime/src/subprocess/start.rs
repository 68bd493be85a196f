//! From a specification to something that runs.

use super::{
    binding,
    framed::{Desk, Talk},
    harvest::Harvest,
    launch::{KillOnDrop, Launched, Place, Plan},
    output::Output,
    setting::Setting,
    supervise::{Handle, Running},
    warm::Pool,
};
use crate::{
    egress::{Policy, Server},
    redact::Redactor,
};
use crosspoint_core::{Code, Error, Level, Protocol, Result, RunSpec, Timestamp};
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};

/// Everything that a start needs.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) spec: RunSpec,
    pub(super) setting: Setting,
    /// Where interpreters may be ready for it.
    pub(super) pool: Option<Pool>,
}

/// How a run is going to be talked to.
enum Speech {
    Plain,
    Framed(Vec<u8>),
    Http(Vec<u8>, Desk),
}

impl Start {
    pub(super) async fn run(self) -> Result<Handle> {
        let began = Instant::now();
        let now = self.setting.clock.now();
        if let Some(pool) = &self.pool {
            while let Some(worker) = pool.take(&self.setting) {
                let (plan, speech) = plan(&self.setting, &self.spec, worker.place(), now)?;
                match worker.hand_over(&plan).await {
                    Some(launched) => return supervise(self.spec, self.setting, (launched, speech), began, now),
                    None => pool.lost(&self.setting),
                }
            }
        }
        let Self { spec, setting, .. } = self;
        let planner = move |setting: &Setting, place| {
            let (plan, speech) = plan(setting, &spec, place, now)?;
            Ok((plan, (spec, speech)))
        };
        let (launched, (spec, speech)) = Box::pin(setting.launch(planner)).await?;
        supervise(spec, setting, (launched, speech), began, now)
    }
}

/// What is to be started in this place, and how it is talked to.
fn plan(setting: &Setting, spec: &RunSpec, mut place: Place, now: Timestamp) -> Result<(Plan, Speech)> {
    let script = &*setting.script;
    let desk = match script.spoken() {
        Protocol::Http => Some(Desk::open()?),
        _ => None,
    };
    place.desk = desk.as_ref().map(Desk::address);
    let layout = binding::prepare((spec, script), &setting.base, place, &setting.egress, now)?;
    let hello = match script.spoken() {
        Protocol::Plain => None,
        _ => Some(binding::start(&layout, spec, script, now)?),
    };
    let speech = match (hello, desk) {
        (Some(hello), Some(desk)) => Speech::Http(hello, desk),
        (Some(hello), None) => Speech::Framed(hello),
        (None, _) => Speech::Plain,
    };
    let framed = script.spoken() == Protocol::Framed;
    Ok((setting.plan(layout, framed)?, speech))
}

fn supervise(
    spec: RunSpec,
    setting: Setting,
    (mut launched, speech): (Launched, Speech),
    began: Instant,
    now: Timestamp,
) -> Result<Handle> {
    let redactor = Redactor::new(&spec.secrets);
    let output = Output::new(redactor, Arc::clone(&setting.clock), spec.limits.log_bytes);
    if let Some(tool) = &launched.through {
        output.note(Level::Debug, format!("sandboxed by {tool}"));
    }
    let talk = match (speech, launched.stdin.take(), launched.messages.take()) {
        (Speech::Plain, ..) => None,
        (Speech::Framed(hello), Some(stdin), Some(messages)) => {
            Some(Talk::over_pipes(hello, stdin, messages, output.clone(), &spec))
        }
        (Speech::Http(hello, desk), ..) => Some(Talk::over_http(hello, desk, output.clone(), &spec)?),
        (Speech::Framed(_), ..) => {
            return Err(Error::new(Code::Internal, "a script was started without its pipes"));
        }
    };
    let signals = launched.tree.signals();
    let egress = match launched.listener.take() {
        Some(listener) => {
            let resolve = Arc::clone(&setting.ground.resolve);
            let mut policy = Policy::of(&spec, setting.egress, resolve, Arc::clone(&setting.clock));
            policy.internal = setting.ground.internal;
            Some(Server::start(listener, policy).inspect_err(|_| signals.kill())?)
        }
        None => None,
    };
    let running = Running {
        egress,
        guard: KillOnDrop(Arc::clone(&signals)),
        output,
        talk,
        limits: spec.limits,
        deadline: began + spec.deadline.since(now).min(crate::FAR),
        setup: began.elapsed(),
        harvest: Harvest {
            limits: spec.limits,
            pandium: binding::is_pandium(&setting.script),
            mode: spec.mode,
            state: spec.state.value,
            clock: setting.clock,
        },
        launched,
    };
    let (stop, stops) = watch::channel(None);
    Ok(Handle::new(
        stop,
        tokio::spawn(running.supervise(stops)),
        KillOnDrop(signals),
    ))
}
