//! `/c/<slot>/<path>`: requests over the installation's connections. The credential is added by the connection's own
//! transport, outside; what comes back has nothing of it.

use super::{
    Shared,
    answer::{Content, EFFECT_KEY, strip},
    meter::Line,
};
use bytes::{Bytes, BytesMut};
use crosspoint_core::{Code, ConnectionClient, Error, ErrorExt, Result, RunKey};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::{Body as _, Incoming};
use std::{future::poll_fn, pin::Pin, sync::Arc};
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking, time::timeout};

/// What every path of the broker begins with.
pub(super) const PREFIX: &str = "/c/";

/// Larger inputs are hashed on a thread that may block.
const LARGE: usize = 256 * 1024;

/// The longest name of an effect.
const LONGEST_NAME: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers of the run that are not for the provider: who it is and what it may is the connection's affair.
const REPLACED: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::AUTHORIZATION,
    header::COOKIE,
    EFFECT_KEY,
];

/// Headers of the provider that are not for the run: its sessions are as good as a credential, and so is an echo of one.
const KEPT_OUTSIDE: [HeaderName; 5] = [
    header::SET_COOKIE,
    header::AUTHORIZATION,
    header::COOKIE,
    super::answer::ERROR,
    EFFECT_KEY,
];

/// One request, taken apart.
struct Call {
    slot: String,
    client: ConnectionClient,
    request: Request<Bytes>,
    /// Held until the answer has been written.
    place: OwnedSemaphorePermit,
}

/// Sends a request over the connection that its path names.
pub(super) async fn send(shared: &Shared, line: &Arc<Line>, request: Request<Incoming>) -> Result<Response<Content>> {
    // Whoever waits, for a place or for the provider, is not idle.
    let busy = line.busy();
    let mut call = read(shared, request).await?;
    let key = effect_key(shared, &mut call).await?;
    let mut client = call.client.with_deadline(shared.deadline).concealing();
    if let Some(key) = key {
        client = client.with_effect_key(key);
    }
    let is_head = *call.request.method() == Method::HEAD;
    let answered = client.send(call.request).await;
    drop(busy);
    let mut response = answered
        .and_then(|response| incoming(response, is_head, shared.limits.body))?
        .map(|body| Content::Held(body, Some(call.place)));
    if let Some(key) = key.and_then(|key| HeaderValue::try_from(key.to_string()).ok()) {
        response.headers_mut().insert(EFFECT_KEY, key);
    }
    Ok(response)
}

/// Reads the request whole, as soon as there is room for it.
async fn read(shared: &Shared, request: Request<Incoming>) -> Result<Call> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let (slot, below) = split(path);
    let client = shared.connections.get(&slot).ok_or_else(|| unknown(shared, &slot))?;
    if parts.method == Method::TRACE || parts.method.as_str() == "TRACK" {
        return Err(Error::new(
            Code::MethodNotAllowed,
            "a provider would answer with the request as it got it, credential and all",
        ));
    }
    parts.uri = target(below)?;
    strip(&mut parts.headers);
    for name in REPLACED.iter().filter(|name| **name != EFFECT_KEY) {
        parts.headers.remove(name);
    }
    let place = Arc::clone(&shared.calls).acquire_owned().await;
    let place = place.or_fail(Code::ShuttingDown, "the run is over")?;
    let body = timeout(shared.limits.body_time, collect(body, shared.limits.body)).await;
    let body = body.map_err(|_| Error::new(Code::BodyTooSlow, "the body of the request did not arrive in time"))??;
    Ok(Call {
        client: client.clone(),
        slot,
        request: Request::from_parts(parts, body),
        place,
    })
}

/// The slot, and what is below it with its slash.
fn split(path: &str) -> (String, &str) {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (slot, below) = rest.split_at_checked(end).unwrap_or((rest, ""));
    (decoded(slot), below)
}

/// The target of the request to the provider: a path below the connection's base URL, or an absolute URL of it, as
/// providers give them for the next page.
fn target(below: &str) -> Result<Uri> {
    let wrong = |_| {
        Error::new(
            Code::InputInvalid,
            "the path behind the connection is not the path of a URL",
        )
    };
    let absolute = below.strip_prefix('/').unwrap_or_default();
    if absolute.starts_with("https://") || absolute.starts_with("http://") {
        return absolute.parse().map_err(wrong);
    }
    let below = if below.starts_with('/') {
        below.to_owned()
    } else {
        format!("/{below}")
    };
    PathAndQuery::try_from(below).map(Uri::from).map_err(wrong)
}

/// Without percent-encoding, if it is valid.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = if *first == b'%' { behind.get(..2) } else { None };
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let byte = code
            .filter(|code| !code.starts_with('+'))
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() {
            behind.get(2..).unwrap_or_default()
        } else {
            behind
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn unknown(shared: &Shared, slot: &str) -> Error {
    let names: Vec<_> = shared.connections.keys().map(String::as_str).collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let slot: String = slot.chars().take(64).collect();
    Error::new(
        Code::NotFound,
        format!("there is no connection `{slot}`; those of this integration: {names}"),
    )
}

async fn collect(mut body: Incoming, most: usize) -> Result<Bytes> {
    let too_large = || {
        Error::new(
            Code::BodyTooLarge,
            format!("the body of a request may have {most} bytes at most"),
        )
    };
    let stated = body.size_hint().lower();
    if usize::try_from(stated).map_or(true, |stated| stated > most) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.or_fail(Code::BodyMalformed, "the body of the request broke off")?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len().saturating_add(data.len()) > most {
            return Err(too_large());
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}

/// The key of an effect: for requests that may have one and bring none of their own.
async fn effect_key(shared: &Shared, call: &mut Call) -> Result<Option<RunKey>> {
    let headers = call.request.headers_mut();
    let named = headers.remove(EFFECT_KEY);
    let own = headers.contains_key(IDEMPOTENCY_KEY);
    let reads = matches!(*call.request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || own {
        return Ok(None);
    }
    let key = match named {
        Some(name) => shared.keys.named(&call.slot, effect_name(&name)?),
        None => next_key(shared, call).await?,
    };
    let value = HeaderValue::try_from(key.to_string()).or_fail(Code::Internal, "a key is not a header")?;
    call.request.headers_mut().insert(IDEMPOTENCY_KEY, value);
    Ok(Some(key))
}

fn effect_name(name: &HeaderValue) -> Result<&str> {
    let name = name.to_str().ok().filter(|name| matches!(name.len(), 1..=LONGEST_NAME));
    name.ok_or_else(|| {
        Error::new(
            Code::KeyMalformed,
            "the name of an effect is 1 to 255 visible ASCII characters",
        )
    })
}

async fn next_key(shared: &Shared, call: &Call) -> Result<RunKey> {
    let action = format!("{} {}", call.request.method(), call.request.uri());
    let body = call.request.body().clone();
    if body.len() <= LARGE {
        return Ok(shared.keys.next(&call.slot, &action, &body));
    }
    let (keys, slot) = (Arc::clone(&shared.keys), call.slot.clone());
    let key = spawn_blocking(move || keys.next(&slot, &action, &body)).await;
    key.or_fail(Code::Internal, "the key of an effect was lost")
}

/// The provider's answer as the run gets it.
fn incoming(response: Response<Bytes>, is_head: bool, most: usize) -> Result<Response<Bytes>> {
    let (parts, body) = response.into_parts();
    if body.len() > most {
        return Err(Error::new(
            Code::ResponseTooLarge,
            "the provider's answer is larger than the limit",
        ));
    }
    if parts.status.is_informational() {
        return Err(Error::new(
            Code::ProviderError,
            "the provider wants to speak another protocol",
        ));
    }
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    clean(answer.headers_mut());
    if !is_head && parts.status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(answer)
}

fn clean(headers: &mut HeaderMap) {
    strip(headers);
    for name in &KEPT_OUTSIDE {
        headers.remove(name);
    }
}

/// A path that is none of the broker's.
pub(super) fn elsewhere() -> Error {
    Error::new(
        Code::NotFound,
        "here are the connections of the integration: `/c/<connection>/<path>`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (path, slot, to) in [
            ("/c/shop/orders?x=1", "shop", "/orders?x=1"),
            ("/c/shop", "shop", "/"),
            ("/c/shop?x=1", "shop", "/?x=1"),
            ("/c/my%20shop/%20x", "my shop", "/%20x"),
            ("/c/100%/x", "100%", "/x"),
            ("/c/a%+1/x", "a%+1", "/x"),
            ("/c/%ff/x", "%ff", "/x"),
            ("/c/shop//evil.example/x", "shop", "//evil.example/x"),
            ("/c/shop/../x", "shop", "/../x"),
            (
                "/c/shop/https://api.example/v2?page=2",
                "shop",
                "https://api.example/v2?page=2",
            ),
            ("/c//x", "", "/x"),
        ] {
            let (found, below) = split(path);
            assert_eq!(
                (found.as_str(), target(below).unwrap().to_string().as_str()),
                (slot, to),
                "{path}"
            );
        }
        assert_eq!(target("//evil.example/x").unwrap().authority(), None);
    }
}
