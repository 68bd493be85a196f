//! What every handler works with.

use crate::{assets::Assets, config::Forms, problem::not_found, route::Route};
use crosspoint_core::{
    Authenticate, Authorizer, Choices, Clock, Code, Control, Customer, CustomerId, CustomerScope, Error, Installation,
    InstallationId, Page, Principal, Registry, Result, Scope, Store, Timetable, Vault,
};
use http::{HeaderMap, header};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

/// What the marketplace is made of. Every part must be given: there is no default for who may come in.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a part that is not given must not compile, so a new part is a breaking change"
)]
pub struct Parts {
    /// The connectors and integrations that the host registered.
    pub registry: Arc<Registry>,
    /// Where installations, connections and executions are kept.
    pub store: Store,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The host's session: who is calling.
    pub auth: Arc<dyn Authenticate>,
    /// Connects customers to providers.
    pub authorizer: Arc<dyn Authorizer>,
    /// Dynamic choices for forms.
    pub choices: Arc<dyn Choices>,
    /// Starts, replays and cancels executions.
    pub control: Arc<dyn Control>,
    /// Reads schedules.
    pub timetable: Arc<dyn Timetable>,
    /// Seals the secrets of configurations.
    pub vault: Arc<dyn Vault>,
}

/// The parts, and what is made of them once.
pub(crate) struct App {
    pub(crate) parts: Parts,
    pub(crate) forms: Forms,
    pub(crate) assets: Assets,
    pub(crate) document: bytes::Bytes,
    seen: Mutex<HashMap<CustomerId, String>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

/// Customers whose record is known to be up to date. When the table is full it starts anew, which costs each customer
/// one more write.
const MAX_SEEN: usize = 10_000;

impl App {
    pub(crate) fn new(parts: Parts, routes: &[Route]) -> Result<Self> {
        crate::check(&parts.registry)?;
        Ok(Self {
            forms: Forms::new(&parts.registry)?,
            assets: Assets::embedded(),
            document: serde_json::to_vec(&crate::openapi::document(routes, &crate::openapi::MARKETPLACE)?)
                .map_err(|e| Error::new(Code::Internal, "the OpenAPI document does not serialise").caused_by(e))?
                .into(),
            parts,
            seen: Mutex::default(),
        })
    }

    /// The right to a customer's data, made here and nowhere else: for whom the host's authenticator has named, or for
    /// whom the host's own program acts.
    #[expect(
        clippy::disallowed_methods,
        reason = "a principal comes from the host alone, and becomes a scope here alone"
    )]
    fn trust(principal: &Principal) -> CustomerScope {
        CustomerScope::trusted(principal.customer.clone())
    }

    /// Lets a caller in whom the authenticator has named, and keeps the customer's record.
    pub(crate) async fn admit(&self, principal: &Principal) -> Result<CustomerScope> {
        let scope = Self::trust(principal);
        let known = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(&principal.customer) == Some(&principal.customer_name)
        };
        if !known {
            let now = self.parts.clock.now();
            let customer = Customer::new(principal.customer.clone(), principal.customer_name.clone(), now);
            self.parts.store.customers.ensure(&scope, &customer).await?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() >= MAX_SEEN {
                seen.clear();
            }
            seen.insert(customer.id, customer.name);
        }
        Ok(scope)
    }
}

/// A request of anybody.
#[derive(Debug)]
pub(crate) struct PublicCx {
    pub(crate) app: Arc<App>,
    pub(crate) path: Vec<(String, String)>,
    /// The address as the browser sees it, query left out.
    pub(crate) address: String,
}

/// A request of a customer's user who may do this.
#[derive(Debug)]
pub(crate) struct Cx {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Principal,
    pub(crate) scope: CustomerScope,
    pub(crate) path: Vec<(String, String)>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    /// The path that the router is nested at, without a slash at its end.
    pub(crate) base: String,
}

impl Cx {
    /// The host's own program acts for a customer, without a request.
    pub(crate) fn within(app: Arc<App>, customer: CustomerId) -> Self {
        let principal = Principal::admin(customer, "host");
        Self {
            app,
            scope: App::trust(&principal),
            principal,
            path: Vec::new(),
            query: BTreeMap::new(),
            headers: HeaderMap::new(),
            base: String::new(),
        }
    }

    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope::Customer(&self.scope)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.app.parts.store
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.app.parts.registry
    }

    /// A parameter of the path.
    pub(crate) fn param(&self, name: &str) -> Result<&str> {
        param(&self.path, name)
    }

    /// The parameter `id`.
    pub(crate) fn id<T: FromStr<Err = Error>>(&self) -> Result<T> {
        self.param("id")?.parse()
    }

    /// Which part of a list is asked for.
    pub(crate) fn page(&self) -> Result<Page> {
        let wrong = || Error::new(Code::InputInvalid, "`limit` is a number from 1 to 100");
        let limit = match self.query.get("limit") {
            None => 50,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=100).contains(limit))
                .ok_or_else(wrong)?,
        };
        let after = self.query.get("after").filter(|cursor| !cursor.is_empty());
        Ok(after.map_or_else(|| Page::first(limit), |cursor| Page::after(cursor.clone(), limit)))
    }

    /// One of the caller's own installations.
    pub(crate) async fn installation(&self) -> Result<Installation> {
        let id: InstallationId = self.id()?;
        let found = self.store().installations.get(self.scope(), id).await?;
        found.ok_or_else(|| not_found("installation"))
    }

    /// All of the caller's installations.
    pub(crate) async fn installations(&self) -> Result<Vec<Installation>> {
        let mut all = Vec::new();
        let mut page = Page::first(100);
        loop {
            let part = self.store().installations.list(self.scope(), page).await?;
            all.extend(part.items);
            match part.next {
                Some(next) => page = Page::after(next, 100),
                None => return Ok(all),
            }
        }
    }

    /// Refuses unless `If-Match` names the revision.
    pub(crate) fn check_revision(&self, revision: u64) -> Result<()> {
        let given = self.headers.get(header::IF_MATCH).ok_or_else(|| {
            Error::new(
                Code::RevisionRequired,
                "send the `ETag` that the change starts from as `If-Match`",
            )
        })?;
        let current = format!("\"{revision}\"");
        let given = given.to_str().unwrap_or("");
        if given.split(',').map(str::trim).any(|tag| tag == "*" || tag == current) {
            return Ok(());
        }
        Err(stale().with("current", revision))
    }
}

/// Somebody else was first.
pub(crate) fn stale() -> Error {
    Error::new(
        Code::RevisionStale,
        "it was changed in the meantime: read it again, look at the change and repeat yours",
    )
}

pub(crate) fn param<'p>(path: &'p [(String, String)], name: &str) -> Result<&'p str> {
    path.iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .ok_or_else(|| {
            Error::new(Code::Internal, "a route lacks a parameter that its handler reads").with("name", name)
        })
}
