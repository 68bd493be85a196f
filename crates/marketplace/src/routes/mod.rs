//! The route table.

mod catalogue;
mod connections;
mod executions;
mod fields;
mod install;
mod installations;

pub(crate) use install::create;

use crate::{
    app::{PublicCx, param},
    problem::not_found,
    route::{Op, Route},
};
use axum::{body::Body, response::Response};
use crosspoint_core::{Permission as May, Result};
use http::{HeaderValue, Method, header};

/// Every route of the marketplace: what the router serves, whose permission it asks for, and what the OpenAPI document
/// says.
///
/// ```
/// use crosspoint_marketplace::{Access, routes};
/// for route in routes() {
///     assert!(route.is_safe() || matches!(route.access(), Access::May(_)));
/// }
/// ```
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut all = public();
    all.extend(catalogue());
    all.extend(installations());
    all.extend(parts_of_installations());
    all.extend(executions());
    all.extend(connections());
    all
}

fn public() -> Vec<Route> {
    let page = "the page holds no data; its calls authenticate";
    vec![
        Route::public(
            page,
            "text/html",
            get("/", "page", "The page with the marketplace in it"),
            |cx| async move { Ok(cx.app.assets.page(&cx.address)) },
        ),
        Route::public(
            "the files are the same for everybody",
            "text/javascript",
            get(
                "/element.js",
                "element",
                "The custom element, at an address that stays, for the host's own pages",
            ),
            |cx| async move { Ok(cx.app.assets.loader()) },
        ),
        Route::public(
            "the files are the same for everybody",
            "*/*",
            get("/ui/{hash}/{file}", "asset", "A file of the user interface"),
            |cx| async move { asset(&cx) },
        ),
        Route::public(
            "the document describes the software, not its data",
            "application/json",
            get("/v1/openapi.json", "openapi", "This document"),
            |cx| async move { Ok(document(&cx)) },
        ),
    ]
}

fn asset(cx: &PublicCx) -> Result<Response> {
    let file = cx.app.assets.file(param(&cx.path, "hash")?, param(&cx.path, "file")?);
    file.ok_or_else(|| not_found("file"))
}

fn document(cx: &PublicCx) -> Response {
    let mut response = Response::new(Body::from(cx.app.document.clone()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

const fn get(path: &'static str, id: &'static str, summary: &'static str) -> Op {
    Op::new(Method::GET, path, id, summary)
}

const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Op {
    Op::new(Method::POST, path, id, summary)
}

fn catalogue() -> Vec<Route> {
    vec![
        Route::signed_in(
            get("/v1/session", "getSession", "Who is signed in, and what they may do"),
            catalogue::session,
        ),
        Route::may(
            May::CatalogueRead,
            get("/v1/catalogue", "listCatalogue", "The integrations that are offered"),
            catalogue::list,
        ),
        Route::may(
            May::CatalogueRead,
            get(
                "/v1/catalogue/{name}",
                "getOffer",
                "An integration, with what is needed to install it",
            ),
            catalogue::detail,
        ),
        Route::may(
            May::InstallationManage,
            post(
                "/v1/catalogue/{name}/choices/{flow}",
                "askOffer",
                "What the fields of a configuration can be, as a script of the integration says",
            ),
            fields::of_offer,
        ),
    ]
}

fn installations() -> Vec<Route> {
    vec![
        Route::may(
            May::InstallationRead,
            get(
                "/v1/installations",
                "listInstallations",
                "The installations, newest first",
            )
            .paged(),
            installations::list,
        ),
        Route::may(
            May::InstallationManage,
            post("/v1/installations", "install", "Installs an integration").status(201),
            install::install,
        ),
        Route::may(
            May::InstallationRead,
            get("/v1/installations/{id}", "getInstallation", "One installation"),
            installations::get,
        ),
        Route::may(
            May::InstallationManage,
            Op::new(
                Method::PATCH,
                "/v1/installations/{id}",
                "changeInstallation",
                "Changes configuration or connections",
            )
            .if_match(),
            install::change,
        ),
        Route::may(
            May::InstallationManage,
            post(
                "/v1/installations/{id}/pause",
                "pauseInstallation",
                "Pauses: triggers are ignored until it is resumed",
            ),
            installations::pause,
        ),
        Route::may(
            May::InstallationManage,
            post(
                "/v1/installations/{id}/resume",
                "resumeInstallation",
                "Starts a draft, or goes on after a pause or a repair",
            ),
            install::resume,
        ),
        Route::may(
            May::InstallationManage,
            Op::new(
                Method::DELETE,
                "/v1/installations/{id}",
                "uninstall",
                "Removes an installation with its configuration and memory; executions stay for a while",
            )
            .if_match()
            .status(204),
            installations::remove,
        ),
    ]
}

/// What an installation has beside itself: what its fields can be, and when its flows run.
fn parts_of_installations() -> Vec<Route> {
    vec![
        Route::may(
            May::InstallationManage,
            post(
                "/v1/installations/{id}/choices/{flow}",
                "askInstallation",
                "What the fields of its configuration can be, as a script of the integration says",
            ),
            fields::of_installation,
        ),
        Route::may(
            May::InstallationManage,
            post(
                "/v1/installations/{id}/schedules/{flow}/pause",
                "pauseSchedule",
                "Pauses one schedule: it starts nothing until it is resumed, and makes up for nothing then",
            ),
            installations::pause_schedule,
        ),
        Route::may(
            May::InstallationManage,
            post(
                "/v1/installations/{id}/schedules/{flow}/resume",
                "resumeSchedule",
                "Lets a paused schedule go on at its next time",
            ),
            installations::resume_schedule,
        ),
    ]
}

fn executions() -> Vec<Route> {
    vec![
        Route::may(
            May::ExecutionRead,
            get(
                "/v1/installations/{id}/executions",
                "listExecutions",
                "The executions of an installation, newest first",
            )
            .paged(),
            executions::list,
        ),
        Route::may(
            May::ExecutionRun,
            post(
                "/v1/installations/{id}/flows/{flow}/start",
                "startFlow",
                "Starts a flow by hand",
            )
            .status(202),
            executions::start,
        ),
        Route::may(
            May::ExecutionRead,
            get("/v1/executions/{id}", "getExecution", "One execution"),
            executions::get,
        ),
        Route::may(
            May::ExecutionRead,
            get(
                "/v1/executions/{id}/log",
                "getExecutionLog",
                "What an execution says to the customer's people, oldest first",
            )
            .paged(),
            executions::log,
        ),
        Route::may(
            May::ExecutionRun,
            post(
                "/v1/executions/{id}/cancel",
                "cancelExecution",
                "Asks an execution to stop",
            ),
            executions::cancel,
        ),
        Route::may(
            May::ExecutionRun,
            post(
                "/v1/executions/{id}/replay",
                "replayExecution",
                "Does the same again as a new execution, with the present or the original configuration",
            )
            .status(202),
            executions::replay,
        ),
    ]
}

fn connections() -> Vec<Route> {
    vec![
        Route::may(
            May::InstallationRead,
            get("/v1/connections", "listConnections", "The connections, newest first").paged(),
            connections::list,
        ),
        Route::may(
            May::ConnectionManage,
            post("/v1/connections", "connect", "Connects to a provider").status(201),
            connections::connect,
        ),
        Route::may(
            May::ConnectionManage,
            Op::new(
                Method::PUT,
                "/v1/connections/{id}/credential",
                "replaceCredential",
                "Replaces the credential of a connection",
            ),
            connections::reconnect,
        ),
        Route::may(
            May::ConnectionManage,
            post(
                "/v1/connections/{id}/test",
                "testConnection",
                "Asks the provider whether the credential works",
            ),
            connections::test,
        ),
        Route::may(
            May::ConnectionManage,
            Op::new(
                Method::DELETE,
                "/v1/connections/{id}",
                "disconnect",
                "Removes a connection that no installation uses",
            )
            .status(204),
            connections::remove,
        ),
        Route::may(
            May::InstallationManage,
            get(
                "/v1/connections/{id}/choices/{source}",
                "listChoices",
                "What a field of a form can be, as the provider says",
            )
            .query(&[
                ("search", "What was typed so far"),
                ("after", "The `next` of the page before"),
            ]),
            connections::choices,
        ),
    ]
}
