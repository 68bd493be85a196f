//! Connections: links to providers, their credentials, and what the providers offer to forms.

use super::install::reconnected;
use crate::{
    answer::{Answer, NoContent},
    app::Cx,
    body::{Json, NoBody},
    check::{escape, problems_error},
    problem::not_found,
    views::{Connect, ConnectionView, Reconnect},
};
use crosspoint_core::{
    AuthScheme, BaseUrl, ChoicePage, ChoiceQuery, Code, ConnectRequest, Connection, ConnectionId, ConnectionTest,
    CredentialFields, Error, Installation, Paged, Problem, Result, SecretString,
};
use std::collections::BTreeMap;

pub(super) async fn list(cx: Cx, _: NoBody) -> Result<Answer<Paged<ConnectionView>>> {
    let page = cx.store().connections.list(cx.scope(), cx.page()?).await?;
    let installed = cx.installations().await?;
    Ok(Answer::of(page.map(|connection| view(&cx, connection, &installed))))
}

pub(super) async fn connect(cx: Cx, Json(body): Json<Connect>) -> Result<Answer<ConnectionView>> {
    if cx.registry().connector(&body.connector).is_none() {
        let what = "there is no such connector";
        let problem = Problem::new("/connector", what);
        return Err(Error::new(Code::InputInvalid, what).with_problems(vec![problem]));
    }
    let mut request = ConnectRequest::new(&body.connector, credential(body.fields));
    request.scheme = body.scheme;
    request.label = label(body.label);
    request.variables = body.variables;
    check(&cx, &request)?;
    let connection = cx.app.parts.authorizer.connect(&cx.scope, request).await?;
    let id = connection.id;
    Ok(Answer::of(view(&cx, connection, &[])).location(format!("v1/connections/{id}")))
}

pub(super) async fn reconnect(cx: Cx, Json(body): Json<Reconnect>) -> Result<Answer<ConnectionView>> {
    let stored = connection(&cx).await?;
    let mut request = ConnectRequest::new(&stored.connector, credential(body.fields));
    request.scheme = body.scheme.or(Some(stored.scheme));
    request.label = label(body.label).or(Some(stored.label));
    request.variables = body.variables.unwrap_or(stored.variables);
    request.reconnect = Some(stored.id);
    check(&cx, &request)?;
    let connection = cx.app.parts.authorizer.connect(&cx.scope, request).await?;
    let installed = cx.installations().await?;
    let answer = Answer::of(view(&cx, connection, &installed));
    reconnected(&cx, stored.id, installed).await;
    Ok(answer)
}

pub(super) async fn test(cx: Cx, _: NoBody) -> Result<Answer<ConnectionTest>> {
    let connection = connection(&cx).await?;
    let result = cx.app.parts.authorizer.test(&cx.scope, connection.id).await?;
    Ok(Answer::of(result))
}

pub(super) async fn remove(cx: Cx, _: NoBody) -> Result<NoContent> {
    let connection = connection(&cx).await?;
    let users = used_by(&cx.installations().await?, connection.id);
    if !users.is_empty() {
        let message = format!("{} installations use it: remove them first", users.len());
        return Err(Error::new(Code::Conflict, message));
    }
    match cx.store().connections.remove(cx.scope(), connection.id).await? {
        true => Ok(NoContent),
        false => Err(not_found("connection")),
    }
}

pub(super) async fn choices(cx: Cx, _: NoBody) -> Result<Answer<ChoicePage>> {
    let connection = connection(&cx).await?;
    let source = cx.param("source")?;
    // A source of another connector would be asked with a credential that is not for it.
    if source
        .split_once('.')
        .is_none_or(|(connector, _)| connector != connection.connector)
    {
        return Err(not_found("source of choices"));
    }
    let mut query = ChoiceQuery::default();
    query.search = cx.query.get("search").cloned().unwrap_or_default();
    query.after = cx.query.get("after").cloned().filter(|cursor| !cursor.is_empty());
    let choices = &cx.app.parts.choices;
    Ok(Answer::of(
        choices.choices(&cx.scope, connection.id, source, &query).await?,
    ))
}

async fn connection(cx: &Cx) -> Result<Connection> {
    let id: ConnectionId = cx.id()?;
    let found = cx.store().connections.get(cx.scope(), id).await?;
    found.ok_or_else(|| not_found("connection"))
}

fn credential(fields: BTreeMap<String, String>) -> CredentialFields {
    let mut credential = CredentialFields::default();
    for (name, value) in fields {
        credential.insert(name, SecretString::from(value));
    }
    credential
}

fn label(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Names every field that is missing or not known, before anything is sealed.
fn check(cx: &Cx, request: &ConnectRequest) -> Result<()> {
    use crosspoint_core::ExposeSecret;
    let mut problems = Vec::new();
    let schemes = cx.app.parts.authorizer.schemes(&request.connector)?;
    let scheme = match &request.scheme {
        Some(name) => schemes.iter().find(|scheme| scheme.name() == name),
        None => schemes.first(),
    };
    let expected = scheme.map_or(&[][..], AuthScheme::fields);
    if scheme.is_none() && request.scheme.is_some() {
        problems.push(Problem::new("/scheme", "the connector does not authenticate like this"));
    } else {
        for name in expected {
            let given = request
                .fields
                .get(name)
                .is_some_and(|value| !value.expose_secret().is_empty());
            if !given {
                problems.push(Problem::new(format!("/fields/{name}"), "is required"));
            }
        }
        for (name, _) in request.fields.iter().filter(|(name, _)| !expected.contains(name)) {
            problems.push(Problem::new(format!("/fields/{}", escape(name)), "is not known here"));
        }
    }
    let own_address = cx
        .registry()
        .connector(&request.connector)
        .is_some_and(|connector| connector.descriptor().base_url == BaseUrl::PerConnection);
    if own_address
        && request
            .variables
            .get("base_url")
            .is_none_or(|url| url.trim().is_empty())
    {
        problems.push(Problem::new("/variables/base_url", "is required"));
    }
    problems_error(Code::InputInvalid, "the connection is not complete", problems)
}

fn used_by(installed: &[Installation], id: ConnectionId) -> Vec<crosspoint_core::InstallationId> {
    let uses = |record: &&Installation| record.connections.values().any(|used| *used == id);
    installed.iter().filter(uses).map(|record| record.id).collect()
}

fn view(cx: &Cx, connection: Connection, installed: &[Installation]) -> ConnectionView {
    let connector = cx.registry().connector(&connection.connector);
    let title = connector.map(|connector| connector.descriptor().title.clone());
    ConnectionView {
        id: connection.id,
        title: title.unwrap_or_else(|| connection.connector.clone()),
        connector: connection.connector,
        label: connection.label,
        scheme: connection.scheme,
        variables: connection.variables,
        health: connection.health,
        created: connection.created,
        updated: connection.updated,
        used_by: used_by(installed, connection.id),
    }
}
