//! From the route table to an axum router, and the way of a request through it: origin, session, permission, body,
//! handler, headers.

use crate::{
    answer::harden,
    app::{App, Cx, PublicCx},
    body,
    check::Checker,
    problem::{not_found, response},
    route::{Access, Endpoint, Route},
};
use axum::{
    Router,
    extract::{FromRequestParts, OriginalUri, RawPathParams, Request},
    handler::Handler,
    response::Response,
    routing::{MethodFilter, MethodRouter, on},
};
use crosspoint_core::{Code, Error, Result};
use http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// A route and what is compiled from it once.
struct Served {
    route: Route,
    checker: Option<Checker>,
}

/// Makes the router.
pub(crate) fn router(app: &Arc<App>, routes: Vec<Route>) -> Result<Router> {
    mount(routes, |route| {
        let served = Arc::new(Served {
            checker: checker(&route)?,
            route,
        });
        let app = Arc::clone(app);
        Ok(move |request: Request| serve(Arc::clone(&app), Arc::clone(&served), request))
    })
}

/// A router in which each route has the handler that is made for it; any other address or method is answered with an error.
pub(crate) fn mount<H, T>(routes: Vec<Route>, handler: impl Fn(Route) -> Result<H>) -> Result<Router>
where
    H: Handler<T, ()>,
    T: 'static,
{
    let mut paths: BTreeMap<&'static str, MethodRouter> = BTreeMap::new();
    for route in routes {
        let filter = MethodFilter::try_from(route.method().clone())
            .map_err(|e| Error::new(Code::Internal, "a route has a method that axum does not know").caused_by(e))?;
        let path = route.path();
        let methods = paths.remove(path).unwrap_or_default();
        paths.insert(path, methods.merge(on(filter, handler(route)?)));
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(path, methods.fallback(wrong_method));
    }
    Ok(router.fallback(unknown))
}

fn checker(route: &Route) -> Result<Option<Checker>> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let Some(mut schema) = route.request(&mut generator) else {
        return Ok(None);
    };
    schema.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
    Checker::new(schema.as_value()).map(Some)
}

async fn unknown() -> Response {
    harden(response(&not_found("page or operation")))
}

async fn wrong_method() -> Response {
    let error = Error::new(
        Code::MethodNotAllowed,
        "this address does not take that method; see `Allow`",
    );
    harden(response(&error))
}

async fn serve(app: Arc<App>, served: Arc<Served>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = Box::pin(answer(app, &served, parts, body)).await;
    harden(answer.unwrap_or_else(|error| response(&error)))
}

async fn answer(app: Arc<App>, served: &Served, mut parts: Parts, body: axum::body::Body) -> Result<Response> {
    let route = &served.route;
    if !route.is_safe() {
        check_origin(&parts)?;
    }
    let path = path_params(&mut parts).await?;
    let original = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
    match route.endpoint() {
        Endpoint::Public(handler) => {
            let address = original.path().to_owned();
            handler(PublicCx { app, path, address }).await
        }
        Endpoint::Operator(_) => Err(Error::new(
            Code::Internal,
            "an operators' route stands among those of customers",
        )),
        Endpoint::Customer(handler) => {
            let base = base(original, &parts.uri);
            let principal = app.parts.auth.authenticate(&parts).await?;
            if let Access::May(permission) = route.access()
                && !principal.may(permission)
            {
                return Err(Error::new(
                    Code::CapabilityMissing,
                    "you may not do this; ask whoever administers your account",
                ));
            }
            let scope = app.admit(&principal).await?;
            let value = if route.is_safe() {
                None
            } else {
                body::read(&parts, body).await?
            };
            if let (Some(checker), Some(value)) = (&served.checker, &value) {
                body::check(checker, value)?;
            }
            let cx = Cx {
                app,
                principal,
                scope,
                path,
                query: query(&parts.uri),
                headers: parts.headers,
                base,
            };
            handler(cx, value).await
        }
    }
}

pub(crate) async fn path_params(parts: &mut Parts) -> Result<Vec<(String, String)>> {
    let raw = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| not_found("page or operation"))?;
    Ok(raw.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// The path that the router is nested at: what the whole address has before the part that was routed here.
fn base(original: &Uri, inner: &Uri) -> String {
    let base = original.path().strip_suffix(inner.path()).unwrap_or("");
    base.trim_end_matches('/').to_owned()
}

pub(crate) fn query(uri: &Uri) -> BTreeMap<String, String> {
    axum::extract::Query::<BTreeMap<String, String>>::try_from_uri(uri)
        .map(|query| query.0)
        .unwrap_or_default()
}

/// The header that no page of another site can send without asking first.
const OWN_HEADER: HeaderName = HeaderName::from_static("x-crosspoint");

/// Refuses what a page of another site could have made a browser send along with the user's cookies.
pub(crate) fn check_origin(parts: &Parts) -> Result<()> {
    let refused = |why| Err(Error::new(Code::OriginRefused, why));
    let header = |name: &HeaderName| text(&parts.headers, name);
    if header(&OWN_HEADER) != Some("1") {
        return refused("send the header `x-crosspoint: 1`");
    }
    if parts.headers.contains_key("sec-fetch-site")
        && !matches!(
            header(&HeaderName::from_static("sec-fetch-site")),
            Some("same-origin" | "none")
        )
    {
        return refused("the request comes from a page of another origin");
    }
    if parts.headers.contains_key(header::ORIGIN) {
        let host = header(&header::HOST).or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
        let origin = header(&header::ORIGIN)
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, host)| host);
        match (origin, host) {
            (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => {}
            _ => return refused("the request comes from a page of another host"),
        }
    }
    Ok(())
}

/// The text of a header that was sent once.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}
