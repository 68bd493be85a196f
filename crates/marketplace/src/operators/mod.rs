//! What the host's own people and build servers may do, on a router of its own: it knows no customer, and nobody who is
//! signed in as a customer's user gets in.

mod artifacts;
mod token;

pub use token::OperatorToken;

use crate::{
    answer::harden,
    openapi,
    problem::to_operator,
    route::{Access, Endpoint, Op, Route},
    serve::{check_origin, mount, path_params, query},
};
use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use crosspoint_core::{Code, Error, Operator, OperatorPermission as May, Operators, Publish, Result};
use http::{HeaderMap, HeaderValue, Method, header};
use std::{collections::BTreeMap, sync::Arc};

/// What the operators' routes are made of. Every part must be given: there is no default for who may come in.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a part that is not given must not compile, so a new part is a breaking change"
)]
pub struct OperatorParts {
    /// Which operator is calling: never what signs customers in.
    pub auth: Arc<dyn Operators>,
    /// Publishes integrations.
    pub publish: Arc<dyn Publish>,
}

/// A request of an operator who may do this.
#[derive(Debug)]
pub(crate) struct OperatorCx {
    pub(crate) parts: Arc<OperatorParts>,
    pub(crate) operator: Operator,
    pub(crate) path: Vec<(String, String)>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
}

/// The operators' routes, for the host to nest where its staff's tools are: the API below `v1/`.
///
/// ```
/// use crosspoint_core::{OperatorPermission, Publish, Result};
/// use crosspoint_marketplace::{OperatorParts, OperatorToken, operators};
/// use std::sync::Arc;
/// fn router(publish: Arc<dyn Publish>) -> Result<axum::Router> {
///     let token = OperatorToken::new("ci", "a-long-random-text-of-the-host", OperatorPermission::ALL)?;
///     let operators = operators(OperatorParts { auth: Arc::new(token), publish })?;
///     Ok(axum::Router::new().nest_service("/operators", operators))
/// }
/// ```
///
/// # Errors
/// [`Code::Internal`] if the table of routes contradicts itself.
pub fn operators(parts: OperatorParts) -> Result<Router> {
    let (parts, table) = (Arc::new(parts), operator_routes());
    let document: Bytes = serde_json::to_vec(&openapi::document(&table, &openapi::OPERATORS)?)
        .map_err(|e| Error::new(Code::Internal, "the OpenAPI document does not serialise").caused_by(e))?
        .into();
    mount(table, |route| {
        let (parts, document, route) = (Arc::clone(&parts), document.clone(), Arc::new(route));
        Ok(move |request: Request| serve(Arc::clone(&parts), document.clone(), Arc::clone(&route), request))
    })
}

/// Every route of the operators: what the router serves, whose permission it asks for, and what the OpenAPI document says.
///
/// ```
/// use crosspoint_marketplace::{Access, operator_routes};
/// for route in operator_routes() {
///     assert!(route.is_safe() || matches!(route.access(), Access::Operator(_)));
/// }
/// ```
#[must_use]
pub fn operator_routes() -> Vec<Route> {
    vec![
        Route::public(
            "the document describes the software, not its data",
            "application/json",
            Op::new(Method::GET, "/v1/openapi.json", "openapi", "This document"),
            // The document is known to the router alone, which answers in its place.
            |_| async { Err(Error::new(Code::Internal, "the document is served by the router")) },
        ),
        Route::operator(
            May::ArtifactRead,
            Op::new(
                Method::GET,
                "/v1/artifacts",
                "listArtifacts",
                "What was published, withdrawn versions included",
            ),
            artifacts::list,
        ),
        Route::operator(
            May::ArtifactPublish,
            Op::new(
                Method::POST,
                "/v1/artifacts",
                "publishArtifact",
                "Publishes an integration from an archive",
            )
            .takes(artifacts::MEDIA)
            .query(&[
                (
                    "check",
                    "`true`: look whether it could be published, and publish nothing",
                ),
                ("replace", "`true`: take the place of the same pre-release"),
                ("digest", "What the content has to be; refused if it is not"),
            ]),
            artifacts::publish,
        ),
        Route::operator(
            May::ArtifactPublish,
            Op::new(
                Method::POST,
                "/v1/artifacts/{name}/{version}/withdraw",
                "withdrawArtifact",
                "Takes a version off the catalogue; whoever has installed it keeps it",
            ),
            artifacts::withdraw,
        ),
    ]
}

async fn serve(parts: Arc<OperatorParts>, document: Bytes, route: Arc<Route>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let answer = Box::pin(answer(parts, document, &route, head, body)).await;
    harden(answer.unwrap_or_else(|error| to_operator(&error)))
}

async fn answer(
    parts: Arc<OperatorParts>,
    document: Bytes,
    route: &Route,
    mut head: http::request::Parts,
    body: Body,
) -> Result<Response> {
    if !route.is_safe() {
        check_origin(&head)?;
    }
    let Endpoint::Operator(handler) = route.endpoint() else {
        let mut response = Response::new(Body::from(document));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        return Ok(response);
    };
    let path = path_params(&mut head).await?;
    let operator = parts.auth.authenticate(&head).await?;
    match route.access() {
        Access::Operator(permission) if operator.may(permission) => {}
        _ => return Err(Error::new(Code::CapabilityMissing, "this operator may not do this")),
    }
    let cx = OperatorCx {
        parts,
        operator,
        path,
        query: query(&head.uri),
        headers: head.headers,
    };
    handler(cx, body).await
}
