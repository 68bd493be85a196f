#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod app;
mod assets;
mod body;
mod check;
mod config;
mod openapi;
mod operators;
mod problem;
mod renderable;
mod route;
mod routes;
mod schemas;
mod serve;
mod start;
mod views;

pub use app::Parts;
pub use operators::{OperatorParts, OperatorToken, operator_routes, operators};
pub use renderable::{assert_renderable, renderable};
pub use route::{Access, Route};
pub use routes::routes;
pub use schemas::FormSchemas;
pub use start::check;
pub use views::Install;

use app::{App, Cx};
use axum::Router;
use crosspoint_core::{CustomerId, InstallationId, Result};
use std::sync::Arc;

/// The in-app marketplace: the HTTP API of one customer's integrations, and the page that uses it.
///
/// The crate's page has an example.
#[derive(Debug, Clone)]
#[must_use = "nothing is served before the router is nested"]
pub struct Marketplace {
    app: Arc<App>,
    router: Router,
}

impl Marketplace {
    /// Checks what is registered and prepares the routes.
    ///
    /// # Errors
    /// As [`check`]: a configuration that the form does not show, a schema that does not compile, a dynamic choice that
    /// nobody offers.
    pub fn new(parts: Parts) -> Result<Self> {
        let table = routes();
        let app = Arc::new(App::new(parts, &table)?);
        let router = serve::router(&app, table)?;
        Ok(Self { app, router })
    }

    /// The routes, for the host to nest: the page at the place itself, the API below `v1/`.
    ///
    /// `Router::nest_service("/integrations", marketplace.router())` answers at `/integrations` and at `/integrations/`.
    /// `Router::nest` does so at the first alone (or at the second, when the path that it is given ends with a slash).
    /// All links are relative to where the page was asked for, so a reverse proxy may cut off a prefix.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Installs an integration from within the host's own program, with the checks that a user's request gets.
    ///
    /// The customer's id is taken on trust: it must not come from a request unchecked.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`](crosspoint_core::Code::ConfigInvalid) with every problem of configuration and
    /// connections; [`Code::InputInvalid`](crosspoint_core::Code::InputInvalid) if there is no such integration; and
    /// whatever vault and store meet.
    pub async fn install(&self, customer: &CustomerId, wish: Install) -> Result<InstallationId> {
        let cx = Cx::within(Arc::clone(&self.app), customer.clone());
        Ok(routes::create(&cx, wish).await?.id)
    }

    /// The OpenAPI 3.1 document that is served at `v1/openapi.json`.
    #[must_use]
    pub fn openapi(&self) -> &[u8] {
        &self.app.document
    }
}
