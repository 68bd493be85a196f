//! Publishing over HTTP.

use super::OperatorCx;
use crate::{answer::Answer, app::param};
use axum::body::Body;
use crosspoint_core::{Code, ContentDigest, Error, ErrorExt, Problem, PublishOptions, Published, Release, Result};
use http::header;
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// The media types of archives.
pub(super) const MEDIA: &[&str] = &["application/gzip", "application/x-tar"];

/// How long the next part of an archive may be on its way.
const PART: Duration = Duration::from_secs(30);
/// How long a whole archive may be on its way.
const WHOLE: Duration = Duration::from_secs(600);

/// What was published.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Releases {
    /// By name and version.
    items: Vec<Release>,
}

pub(super) async fn list(cx: OperatorCx, _: Body) -> Result<Answer<Releases>> {
    let items = cx.parts.publish.releases().await?;
    Ok(Answer::of(Releases { items }))
}

pub(super) async fn withdraw(cx: OperatorCx, _: Body) -> Result<Answer<Release>> {
    let (name, version) = (param(&cx.path, "name")?, param(&cx.path, "version")?);
    let release = cx.parts.publish.withdraw(name, version).await?;
    tracing::info!(operator = cx.operator.name, integration = name, version, "withdrawn");
    Ok(Answer::of(release))
}

pub(super) async fn publish(cx: OperatorCx, body: Body) -> Result<Answer<Published>> {
    let options = options(&cx)?;
    check_media(&cx)?;
    let publish = &cx.parts.publish;
    let declared = cx
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > publish.largest()) {
        let message = format!("an archive has at most {} bytes here", publish.largest());
        return Err(Error::new(Code::BodyTooLarge, message));
    }
    let mut incoming = publish.receive().await?;
    let received = tokio::time::timeout(WHOLE, async {
        let mut body = body;
        loop {
            let slow = || Error::new(Code::BodyTooSlow, "nothing of the archive came for 30 seconds");
            let Some(part) = tokio::time::timeout(PART, body.frame()).await.map_err(|_| slow())? else {
                return Ok(());
            };
            let part = part.or_fail(Code::BodyMalformed, "the archive did not arrive whole")?;
            if let Ok(data) = part.into_data() {
                incoming.write(data).await?;
            }
        }
    });
    let slow = || Error::new(Code::BodyTooSlow, "the archive was on its way for ten minutes");
    received.await.map_err(|_| slow())??;
    let published = incoming.publish(options).await?;
    let (name, version) = (&published.name, &published.version);
    tracing::info!(
        operator = cx.operator.name,
        integration = name,
        version,
        new = published.new,
        "received"
    );
    Ok(Answer::of(published))
}

fn options(cx: &OperatorCx) -> Result<PublishOptions> {
    let mut problems = Vec::new();
    let mut flag = |name: &str| match cx.query.get(name).map(String::as_str) {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(_) => {
            problems.push(Problem::new(format!("/{name}"), "must be true or false"));
            false
        }
    };
    let mut options = PublishOptions::default();
    options.check = flag("check");
    options.replace = flag("replace");
    match cx.query.get("digest").map(|text| text.parse::<ContentDigest>()) {
        None => {}
        Some(Ok(digest)) => options.digest = Some(digest),
        Some(Err(error)) => problems.push(Problem::new("/digest", error.message())),
    }
    options.author = Some(cx.operator.name.clone());
    match problems.is_empty() {
        true => Ok(options),
        false => {
            Err(Error::new(Code::InputInvalid, "the query is not what this request takes").with_problems(problems))
        }
    }
}

fn check_media(cx: &OperatorCx) -> Result<()> {
    let sent = crate::serve::text(&cx.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    if MEDIA.iter().any(|media| media.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let message = "send the archive as content-type: application/gzip, or application/x-tar if it is not compressed";
    Err(Error::new(Code::ContentTypeUnsupported, message))
}
