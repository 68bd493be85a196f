//! One row of the route table: what the router, the permission check, the OpenAPI document and the authorization tests
//! are all made of.

use crate::{
    answer::Gives,
    app::{Cx, PublicCx},
    body::Takes,
    operators::OperatorCx,
};
use axum::{body::Body, response::Response};
use crosspoint_core::{OperatorPermission, Permission, Result};
use http::Method;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;
use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// Who may use a route.
///
/// There is no default: a [`Route`] is made by naming one of these, and only a public one gets a handler that knows no
/// customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Anybody, for this reason.
    Public(&'static str),
    /// Whoever is signed in.
    SignedIn,
    /// Whoever is signed in and has this permission.
    May(Permission),
    /// An operator of the host who has this permission. Only on the operators' own router.
    Operator(OperatorPermission),
}

type Answering = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;
type PublicFn = Arc<dyn Fn(PublicCx) -> Answering + Send + Sync>;
type OperatorFn = Arc<dyn Fn(OperatorCx, Body) -> Answering + Send + Sync>;
type CustomerFn = Arc<dyn Fn(Cx, Option<Value>) -> Answering + Send + Sync>;
/// Describes a body in the document.
pub(crate) type SchemaFn = fn(&mut SchemaGenerator) -> Option<Schema>;

#[derive(Clone)]
pub(crate) enum Endpoint {
    Public(PublicFn),
    Customer(CustomerFn),
    Operator(OperatorFn),
}

/// What a route is called and what stands in its address and headers.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    status: u16,
    paged: bool,
    if_match: bool,
    query: &'static [(&'static str, &'static str)],
    takes: &'static [&'static str],
}

impl Op {
    pub(crate) const fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            status: 200,
            paged: false,
            if_match: false,
            query: &[],
            takes: &[],
        }
    }
    /// Answers success with this status instead of 200.
    pub(crate) const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    /// Answers a part of a list: takes `limit` and `after`.
    pub(crate) const fn paged(mut self) -> Self {
        self.paged = true;
        self
    }
    /// Requires `If-Match`.
    pub(crate) const fn if_match(mut self) -> Self {
        self.if_match = true;
        self
    }
    /// Takes a body of one of these media types, which is not JSON.
    pub(crate) const fn takes(mut self, media: &'static [&'static str]) -> Self {
        self.takes = media;
        self
    }
    /// Takes these query parameters, each with its meaning.
    pub(crate) const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }
}

/// One route of the marketplace: address, access, schemas and handler.
///
/// [`routes`](crate::routes) gives the whole table, for a host that wants to audit it.
#[derive(Clone)]
pub struct Route {
    op: Op,
    access: Access,
    endpoint: Endpoint,
    request: SchemaFn,
    request_required: bool,
    response: SchemaFn,
    produces: &'static str,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("method", &self.op.method)
            .field("path", &self.op.path)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Route {
    /// For anybody; the reason stands in the table.
    pub(crate) fn public<F, Fut>(reason: &'static str, produces: &'static str, op: Op, handler: F) -> Self
    where
        F: Fn(PublicCx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response>> + Send + 'static,
    {
        Self {
            op,
            access: Access::Public(reason),
            endpoint: Endpoint::Public(Arc::new(move |cx| Box::pin(handler(cx)))),
            request: |_| None,
            request_required: false,
            response: |_| None,
            produces,
        }
    }

    /// For whoever is signed in.
    pub(crate) fn signed_in<B: Takes, G: Gives, F, Fut>(op: Op, handler: F) -> Self
    where
        F: Fn(Cx, B) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<G>> + Send + 'static,
    {
        Self::customer(Access::SignedIn, op, handler)
    }

    /// For whoever has the permission.
    pub(crate) fn may<B: Takes, G: Gives, F, Fut>(permission: Permission, op: Op, handler: F) -> Self
    where
        F: Fn(Cx, B) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<G>> + Send + 'static,
    {
        Self::customer(Access::May(permission), op, handler)
    }

    fn customer<B: Takes, G: Gives, F, Fut>(access: Access, op: Op, handler: F) -> Self
    where
        F: Fn(Cx, B) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<G>> + Send + 'static,
    {
        let status = op.status;
        Self {
            op,
            access,
            endpoint: Endpoint::Customer(Arc::new(move |cx, body| {
                Box::pin(async move {
                    let base = cx.base.clone();
                    handler(cx, B::read(body)?).await?.into_response(status, &base)
                })
            })),
            request: B::schema,
            request_required: B::REQUIRED,
            response: G::schema,
            produces: "application/json",
        }
    }

    /// For an operator who has the permission. The handler reads the body.
    pub(crate) fn operator<G: Gives, F, Fut>(permission: OperatorPermission, op: Op, handler: F) -> Self
    where
        F: Fn(OperatorCx, Body) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<G>> + Send + 'static,
    {
        let status = op.status;
        Self {
            op,
            access: Access::Operator(permission),
            endpoint: Endpoint::Operator(Arc::new(move |cx, body| {
                Box::pin(async move { handler(cx, body).await?.into_response(status, "") })
            })),
            request: |_| None,
            request_required: false,
            response: G::schema,
            produces: "application/json",
        }
    }

    /// The HTTP method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.op.method
    }
    /// The path below the place where the router is nested, with parameters in braces.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.op.path
    }
    /// The operation's id in the document.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.op.id
    }
    /// What it does, in a sentence.
    #[must_use]
    pub const fn summary(&self) -> &'static str {
        self.op.summary
    }
    /// Who may use it.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }
    /// The HTTP status of success.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.op.status
    }
    /// Whether the revision that a change starts from must be given in `If-Match`.
    #[must_use]
    pub const fn requires_revision(&self) -> bool {
        self.op.if_match
    }
    /// Whether it answers a part of a list.
    #[must_use]
    pub const fn is_paged(&self) -> bool {
        self.op.paged
    }
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.op.method.is_safe()
    }

    pub(crate) const fn query(&self) -> &'static [(&'static str, &'static str)] {
        self.op.query
    }
    pub(crate) const fn takes(&self) -> &'static [&'static str] {
        self.op.takes
    }
    pub(crate) const fn produces(&self) -> &'static str {
        self.produces
    }
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
    pub(crate) fn request(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        (self.request)(generator)
    }
    pub(crate) const fn request_required(&self) -> bool {
        self.request_required
    }
    pub(crate) fn response(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        (self.response)(generator)
    }

    /// The names of the parameters in the path.
    #[must_use]
    pub fn parameters(&self) -> Vec<&'static str> {
        let inside = |part: &'static str| part.strip_prefix('{')?.strip_suffix('}');
        let parts = self.op.path.split('/').filter_map(inside);
        parts.map(|name| name.trim_start_matches('*')).collect()
    }
}

/// Checks of the whole table that the types cannot make.
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn operations_and_addresses_are_unique_and_described() {
        let routes = crate::routes();
        let ids: BTreeSet<_> = routes.iter().map(Route::operation).collect();
        let addresses: BTreeSet<_> = routes.iter().map(|r| (r.method().as_str(), r.path())).collect();
        assert_eq!(ids.len(), routes.len());
        assert_eq!(addresses.len(), routes.len());
        for route in &routes {
            assert!(route.summary().len() > 8, "{route:?}");
            if let Access::Public(reason) = route.access() {
                assert!(route.is_safe() && reason.len() > 8, "{route:?}");
            }
        }
    }

    #[test]
    fn what_changes_something_needs_more_than_the_right_to_read() {
        let reading = [
            Permission::CatalogueRead,
            Permission::InstallationRead,
            Permission::ExecutionRead,
        ];
        for route in crate::routes().iter().filter(|r| !r.is_safe()) {
            match route.access() {
                Access::May(permission) => assert!(!reading.contains(&permission), "{route:?}"),
                Access::Public(_) | Access::SignedIn => panic!("{route:?} is open"),
                Access::Operator(_) => panic!("{route:?} is not for customers"),
            }
        }
    }
}
