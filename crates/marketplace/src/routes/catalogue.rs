//! Who is signed in, and what is offered.

use crate::{
    answer::Answer,
    app::Cx,
    body::NoBody,
    problem::not_found,
    views::{Catalogue, FlowDetail, FlowSummary, Installed, Offer, OfferDetail, Scheme, Session, Slot, TriggerView},
};
use crosspoint_core::{AnyIntegration, BaseUrl, ConnectionSlot, FlowDefinition, Installation, Result, Source};

pub(super) async fn session(cx: Cx, _: NoBody) -> Result<Answer<Session>> {
    let principal = cx.principal;
    Ok(Answer::of(Session {
        customer: principal.customer.as_str().to_owned(),
        customer_name: principal.customer_name,
        user: principal.user,
        permissions: principal.permissions,
    }))
}

pub(super) async fn list(cx: Cx, _: NoBody) -> Result<Answer<Catalogue>> {
    let installed = cx.installations().await?;
    let items = cx
        .registry()
        .catalogue()
        .iter()
        .map(|offered| offer(offered, &installed))
        .collect();
    Ok(Answer::of(Catalogue { items }))
}

pub(super) async fn detail(cx: Cx, _: NoBody) -> Result<Answer<OfferDetail>> {
    let integration = cx
        .registry()
        .offered(cx.param("name")?)
        .ok_or_else(|| not_found("integration"))?;
    let connections: Result<Vec<Slot>> = integration.connections.iter().map(|needed| slot(&cx, needed)).collect();
    Ok(Answer::of(OfferDetail {
        offer: offer(&integration, &cx.installations().await?),
        description: integration.description.clone(),
        config_schema: integration.config_schema.as_value().clone(),
        connections: connections?,
        flows: integration
            .flows
            .iter()
            .map(|flow| FlowDetail {
                flow: summary(flow),
                input_schema: flow.input_schema.as_value().clone(),
            })
            .collect(),
    }))
}

fn offer(integration: &AnyIntegration, installed: &[Installation]) -> Offer {
    let ours = installed.iter().filter(|record| record.integration == integration.name);
    Offer {
        name: integration.name.clone(),
        version: integration.version.clone(),
        title: integration.title.clone(),
        summary: integration.summary.clone(),
        category: integration.category.clone(),
        installations: ours
            .map(|record| Installed {
                id: record.id,
                state: record.state,
            })
            .collect(),
    }
}

fn slot(cx: &Cx, needed: &ConnectionSlot) -> Result<Slot> {
    let connector = cx
        .registry()
        .connector(&needed.connector)
        .ok_or_else(|| not_found("connector"))?;
    let descriptor = connector.descriptor();
    let schemes = cx.app.parts.authorizer.schemes(&needed.connector)?;
    Ok(Slot {
        name: needed.name.clone(),
        connector: needed.connector.clone(),
        title: descriptor.title.clone(),
        summary: descriptor.summary.clone(),
        base_url_needed: descriptor.base_url == BaseUrl::PerConnection,
        schemes: schemes
            .into_iter()
            .map(|scheme| Scheme {
                fields: scheme.fields().to_vec(),
                scheme,
            })
            .collect(),
    })
}

/// A flow in short.
pub(super) fn summary(flow: &FlowDefinition) -> FlowSummary {
    FlowSummary {
        name: flow.name.clone(),
        trigger: match &flow.source {
            Source::Event(name) => TriggerView::Event {
                event: name.clone().into_owned(),
            },
            Source::Schedule(spec) => TriggerView::Schedule { schedule: spec.clone() },
            Source::Poll => TriggerView::Poll,
            _ => TriggerView::Call,
        },
    }
}
