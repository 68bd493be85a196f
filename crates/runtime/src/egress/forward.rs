//! Requests over plain http, sent on one by one.

use super::{
    Shared,
    answer::{Carrier, Content, refused, strip},
    dial::unreachable,
    host::Place,
    meter::Line,
    serve::LEAST_BUFFER,
};
use crosspoint_core::{Code, Error, ErrorExt, Result};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Sends a request in absolute form on to its host.
pub(super) async fn send(shared: &Shared, line: &Line, request: Request<Incoming>) -> Result<Response<Content>> {
    let Some(dialer) = &shared.dialer else {
        return Err(refused(
            shared.egress,
            "this script reaches its connections only; other hosts need `Egress::Allow`",
        ));
    };
    if request.uri().scheme() != Some(&http::uri::Scheme::HTTP) {
        return Err(refused(
            "scheme",
            "the proxy sends http on, and takes CONNECT for https",
        ));
    }
    let authority = request.uri().authority();
    let authority = authority.ok_or_else(|| Error::new(Code::BodyMalformed, "the URL has no host"))?;
    let place = Place::read(authority, Some(80))?;
    dialer.check_plain(&place)?;
    let request = outgoing(request, &place)?;
    let is_head = *request.method() == Method::HEAD;
    let (mut sender, carrier) = handshake(shared, dialer.connect(&place).await?).await?;
    let response = tokio::select! {
        response = sender.send_request(request) => response.or_fail(Code::ProviderUnreachable, "the host broke off")?,
        () = line.idle(shared.limits.idle) => return Err(unreachable("the host did not answer in time")),
    };
    if response.status().is_informational() {
        return Err(Error::new(
            Code::ProviderRejected,
            "the host wants to speak another protocol",
        ));
    }
    let (parts, body) = response.into_parts();
    let mut answer = Response::new(Content::Passing(body, carrier));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    strip(answer.headers_mut());
    if !is_head && parts.status != StatusCode::NOT_MODIFIED {
        // Said anew by whoever writes the body.
        answer.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(answer)
}

async fn handshake(shared: &Shared, stream: TcpStream) -> Result<(SendRequest<Incoming>, Carrier)> {
    let made = Builder::new()
        .max_buf_size(shared.limits.buffer.max(LEAST_BUFFER))
        .handshake(TokioIo::new(stream));
    let (sender, connection) = made.await.or_fail(Code::ProviderUnreachable, "the host broke off")?;
    let carried = tokio::spawn(async move {
        // The other half of the exchange hears of a failure too, and says so.
        connection.await.ok();
    });
    Ok((sender, Carrier(carried)))
}

/// The request as its host sees it.
fn outgoing(request: Request<Incoming>, place: &Place) -> Result<Request<Incoming>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.headers_mut() = parts.headers;
    let headers = request.headers_mut();
    strip(headers);
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    let host = match place.port {
        80 => place.host.to_string(),
        _ => place.to_string(),
    };
    let host = HeaderValue::try_from(host).or_fail(Code::Internal, "a host is not a header")?;
    headers.insert(header::HOST, host);
    Ok(request)
}
