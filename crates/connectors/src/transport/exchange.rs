//! One exchange: the request, the redirects that are followed, and the answer up to the size cap.

use super::{Credential, HttpClient, guard::unreachable, target::same_origin};
use bytes::{Bytes, BytesMut};
use crosspoint_core::{Code, Error, Result};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use url::Url;

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// Headers that belong to a single connection between two machines, or that the client sets itself.
const OWN: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
];

/// Headers that may follow a redirect to somebody else.
const HARMLESS: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::RANGE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

pub(super) struct Exchange<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) credential: &'a Credential,
    /// Whose the credential is.
    pub(super) home: &'a Url,
}

impl Exchange<'_> {
    /// Sends a request to `url` and reads the answer.
    pub(super) async fn run(&self, mut url: Url, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        for name in &OWN {
            headers.remove(name);
        }
        let mut at_home = true;
        for _ in 0..=REDIRECTS {
            let response = self.hop(&parts.method, &url, &headers, &body, at_home).await?;
            let Some(mut next) = redirect(&parts.method, &url, &response)? else {
                return self.read(&parts.method, response).await;
            };
            next.set_fragment(None);
            if !same_origin(&next, self.home) {
                // Whoever was sent elsewhere comes back as a stranger.
                at_home = false;
                self.credential.remove_from(&mut next);
            }
            if !at_home {
                headers = only(&headers, &HARMLESS);
            }
            url = next;
        }
        Err(Error::new(Code::ProviderError, "the provider redirects again and again").with("redirects", REDIRECTS))
    }

    async fn hop(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: &Bytes,
        at_home: bool,
    ) -> Result<reqwest::Response> {
        self.client.check(url)?;
        let pool = self.client.pool(url);
        let (mut url, mut headers) = (url.clone(), headers.clone());
        if at_home {
            self.credential.apply(&mut url, &mut headers);
        }
        let mut request = reqwest::Request::new(method.clone(), url);
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.clone().into());
        }
        pool.execute(request).await.map_err(unreachable)
    }

    async fn read(&self, method: &Method, mut response: reqwest::Response) -> Result<http::Response<Bytes>> {
        let most = self.client.limits().max_response;
        let too_large =
            || Error::new(Code::ResponseTooLarge, "the provider's answer is larger than the limit").with("limit", most);
        let stated = response.content_length().unwrap_or(0);
        if *method != Method::HEAD && usize::try_from(stated).map_or(true, |stated| stated > most) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body.freeze());
        *answer.status_mut() = response.status();
        *answer.version_mut() = response.version();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

/// Where a redirect leads, if it is one that is followed.
fn redirect(method: &Method, from: &Url, response: &reqwest::Response) -> Result<Option<Url>> {
    let followed = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !followed || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let target = location.to_str().ok().and_then(|location| from.join(location).ok());
    target.map(Some).ok_or_else(|| {
        Error::new(
            Code::ProviderError,
            "the provider redirects to something that is not a URL",
        )
    })
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
