//! What the fields of a configuration can be, as a script of the integration says.

use super::{install::connections, installations::definition};
use crate::{
    answer::Answer,
    app::Cx,
    body::Optional,
    check::problems_error,
    config::{self, Completeness},
    problem::not_found,
    views::{AskFields, FieldChoices},
};
use crosspoint_core::{AnyIntegration, Code, Error, Installation, InstallationId, Result};
use std::sync::Arc;

/// While an integration is being installed.
pub(super) async fn of_offer(cx: Cx, Optional(body): Optional<AskFields>) -> Result<Answer<FieldChoices>> {
    let offered = cx.registry().offered(cx.param("name")?);
    let integration = offered.ok_or_else(|| not_found("integration"))?;
    let clock = &*cx.app.parts.clock;
    let (customer, version) = (cx.principal.customer.clone(), &integration.version);
    let id = InstallationId::mint(clock);
    let record = Installation::new(id, customer, &integration.name, version, clock.now());
    ask(&cx, &integration, record, body).await
}

/// While an installation is being changed; what is left out is as it is stored.
pub(super) async fn of_installation(cx: Cx, Optional(body): Optional<AskFields>) -> Result<Answer<FieldChoices>> {
    let record = cx.installation().await?;
    let integration = definition(&cx, &record).await;
    let integration = integration
        .ok_or_else(|| Error::new(Code::Conflict, "the version that is installed is not offered any more"))?;
    ask(&cx, &integration, record, body).await
}

async fn ask(
    cx: &Cx,
    integration: &Arc<AnyIntegration>,
    mut record: Installation,
    body: AskFields,
) -> Result<Answer<FieldChoices>> {
    let flow = integration.flow(cx.param("flow")?).ok_or_else(|| not_found("flow"))?;
    if let Some(given) = body.connections {
        let problems = connections(cx, integration, &given, Completeness::Draft).await?;
        problems_error(Code::ConfigInvalid, "the connections are not right", problems)?;
        record.connections = given;
    }
    if let Some(given) = body.config {
        // What is not right yet is no reason to offer no choices. Secrets that are not stored yet are left out.
        let form = cx.app.forms.of(integration)?;
        let (settings, _) = config::split(&form, given, &record);
        record.config = settings.config;
    }
    let fields = cx.app.parts.control.fields(&cx.scope, &record, &flow.name).await?;
    Ok(Answer::of(FieldChoices { fields }))
}
