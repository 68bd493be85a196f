//! The files that scripts have made: results of executions, read through the platform for the customer who is signed in.

use crate::{App, pages};
use axum::{
    extract::{Path, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use crosspoint::{
    core::{CustomerScope, Execution, ExecutionFilter, ExecutionStatus, Page, Scope},
    prelude::*,
};
use serde::Deserialize;
use std::time::Duration;

/// Which flows make files, and how many of the newest are listed: of the report, which holds everything, only the last.
const MAKERS: &[(&str, &str, usize)] = &[("csv-export", "export", 50), ("totals-report", "report", 1)];

/// A file that a script has made.
#[derive(Debug)]
pub struct Export {
    pub execution: Execution,
    pub made: Made,
}

/// The result of the script. Whoever wrote the script wrote this: it is text to be shown, and no more.
#[derive(Debug, Deserialize)]
pub struct Made {
    pub file: String,
    pub csv: String,
    pub summary: String,
}

impl Export {
    async fn read(platform: &Platform, customer: &CustomerId, execution: Execution) -> Option<Self> {
        if execution.status != ExecutionStatus::Succeeded {
            return None;
        }
        let reply = platform.wait(customer, execution.id, Duration::ZERO).await.ok()?;
        let made = serde_json::from_slice(reply.body()).ok()?;
        Some(Self { execution, made })
    }

    /// The newest files of a customer, newest first.
    async fn list(platform: &Platform, customer: &CustomerId) -> Result<Vec<Self>> {
        let scope = scope(customer);
        let mut all = Vec::new();
        for (integration, flow, most) in MAKERS {
            let mut filter = ExecutionFilter::default();
            filter.flow = Some((*flow).to_owned());
            let executions = &platform.store().executions;
            let page = executions.list(Scope::Customer(&scope), &filter, Page::first(100));
            let mut found = Vec::new();
            for execution in page.await?.items {
                if execution.integration == *integration && found.len() < *most {
                    found.extend(Self::read(platform, customer, execution).await);
                }
            }
            all.append(&mut found);
        }
        all.sort_by_key(|export| std::cmp::Reverse(export.execution.finished));
        Ok(all)
    }

    async fn find(platform: &Platform, customer: &CustomerId, id: InvocationId) -> Result<Option<Self>> {
        let scope = scope(customer);
        let found = platform.store().executions.get(Scope::Customer(&scope), id).await?;
        Ok(match found {
            Some(execution) if MAKERS.iter().any(|(name, _, _)| execution.integration == *name) => {
                Self::read(platform, customer, execution).await
            }
            _ => None,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the session has said who is signed in")]
fn scope(customer: &CustomerId) -> CustomerScope {
    CustomerScope::trusted(customer.clone())
}

/// The list.
pub async fn page(State(app): State<App>, parts: Parts) -> Response {
    let Ok(user) = app.sessions.user(&parts) else {
        return Redirect::to("/").into_response();
    };
    match Export::list(&app.platform, &user.customer_id()).await {
        Ok(exports) => pages::exports(user, &exports).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// One file.
pub async fn download(State(app): State<App>, Path(id): Path<String>, parts: Parts) -> Response {
    let Ok(user) = app.sessions.user(&parts) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let Ok(id) = id.parse() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match Export::find(&app.platform, &user.customer_id(), id).await {
        Ok(Some(export)) => {
            let plain = |c: &char| c.is_ascii_alphanumeric() || ".-".contains(*c);
            let name: String = export.made.file.chars().filter(plain).collect();
            let disposition = format!("attachment; filename=\"{name}\"");
            let headers = [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
                (header::CONTENT_DISPOSITION, disposition),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            ];
            (headers, export.made.csv).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
