//! Executions: what ran, what it says, and doing it again.

use super::installations::definition;
use crate::{
    answer::Answer,
    app::Cx,
    body::{Json, NoBody, Optional},
    check::{Checker, problems_error},
    problem::not_found,
    views::{CancelResult, Cancelled, ReplayInput, StartInput, Started},
};
use crosspoint_core::{
    Audience, Cancel, Code, Error, Execution, ExecutionFilter, FlowDefinition, InstallationState, InvocationId,
    LogEntry, Paged, ReplayOptions, Result, Source, Tick,
};
use serde_json::{Value, json};

pub(super) async fn list(cx: Cx, _: NoBody) -> Result<Answer<Paged<Execution>>> {
    let installation = cx.installation().await?;
    let filter = ExecutionFilter::installation(installation.id);
    let page = cx.store().executions.list(cx.scope(), &filter, cx.page()?).await?;
    Ok(Answer::of(page))
}

pub(super) async fn get(cx: Cx, _: NoBody) -> Result<Answer<Execution>> {
    Ok(Answer::of(execution(&cx).await?))
}

async fn execution(cx: &Cx) -> Result<Execution> {
    let id: InvocationId = cx.id()?;
    let found = cx.store().executions.get(cx.scope(), id).await?;
    found.ok_or_else(|| not_found("execution"))
}

pub(super) async fn log(cx: Cx, _: NoBody) -> Result<Answer<Paged<LogEntry>>> {
    let execution = execution(&cx).await?;
    let lines = cx
        .store()
        .log
        .lines(cx.scope(), execution.id, Audience::Customer, cx.page()?);
    Ok(Answer::of(lines.await?))
}

pub(super) async fn start(cx: Cx, Json(body): Json<StartInput>) -> Result<Answer<Started>> {
    let installation = cx.installation().await?;
    let name = cx.param("flow")?;
    let integration = definition(&cx, &installation).await.ok_or_else(|| not_found("flow"))?;
    let flow = integration.flow(name).ok_or_else(|| not_found("flow"))?;
    if installation.state != InstallationState::Active {
        return Err(Error::new(
            Code::Conflict,
            "flows can be started while the installation is active",
        ));
    }
    if matches!(flow.source, Source::Poll) {
        let message = "this flow is started by what its poll finds, and never by hand; run the flow that polls instead";
        return Err(Error::new(Code::Conflict, message).with("flow", name));
    }
    let input = match (body.input, &flow.source) {
        (Some(input), _) => input,
        (None, Source::Schedule(_)) => json!(Tick::new(cx.app.parts.clock.now())),
        (None, _) => Value::Null,
    };
    check_input(flow, &input)?;
    let control = &cx.app.parts.control;
    let id = control.start(&cx.scope, installation.id, name, input).await?;
    Ok(started(id))
}

fn started(id: InvocationId) -> Answer<Started> {
    Answer::of(Started { id }).location(format!("v1/executions/{id}"))
}

fn check_input(flow: &FlowDefinition, input: &Value) -> Result<()> {
    let problems = Checker::new(flow.input_schema.as_value())?.problems(input, "/input");
    problems_error(Code::InputInvalid, "the input is not what the flow takes", problems)
}

pub(super) async fn cancel(cx: Cx, _: NoBody) -> Result<Answer<Cancelled>> {
    let execution = execution(&cx).await?;
    let result = match cx.app.parts.control.cancel(&cx.scope, execution.id).await? {
        Cancel::Cancelled => CancelResult::Cancelled,
        Cancel::Finished => CancelResult::Finished,
        Cancel::NotFound => return Err(not_found("execution")),
        _ => CancelResult::Requested,
    };
    Ok(Answer::of(Cancelled { result }))
}

pub(super) async fn replay(cx: Cx, Optional(body): Optional<ReplayInput>) -> Result<Answer<Started>> {
    let execution = execution(&cx).await?;
    if let Some(input) = &body.input {
        let definition = cx.registry().find(&execution.integration, &execution.version).await;
        let flow = definition
            .as_ref()
            .and_then(|integration| integration.flow(&execution.flow));
        check_input(flow.ok_or_else(|| not_found("flow"))?, input)?;
    }
    let mut options = ReplayOptions::default().config(body.config).state(body.state);
    options.input = body.input;
    let id = cx.app.parts.control.replay(&cx.scope, execution.id, options).await?;
    Ok(started(id))
}
